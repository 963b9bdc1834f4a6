"""Decompressing weights against coremltools' own operations."""

from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil.ops.defs import iOS16, iOS18
from coremltools.optimize import _utils as packing

from coreml_prune_bench.mlprogram import decompress


def shapes(rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks along each axis, and the shape of what has them."""
    blocks = np.random.default_rng(rank).integers(1, 4, rank)
    return blocks, blocks * np.arange(1, rank + 1)


def agree(operation: str, expected: Any, **data: Any) -> None:
    arrays = {name: np.asarray(value) for name, value in data.items() if value is not None}
    expected = expected if isinstance(expected, tuple) else (expected,)
    for result, value in zip(decompress.decompressed(operation, arrays, 1 << 20), expected, strict=True):
        np.testing.assert_array_equal(result, value)
        assert result.dtype == value.dtype


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_quantized_blocks(rank: int, dtype: Any) -> None:
    random, (blocks, shape) = np.random.default_rng(0), shapes(rank)
    data, scale = random.integers(-128, 128, shape).astype(np.int8), random.random(blocks).astype(dtype)
    mask = random.integers(0, 2, shape).astype(np.uint8)
    nonzero = data[mask != 0]
    for offset in (None, random.integers(-128, 128, blocks).astype(np.int8)):
        expected = iOS18.constexpr_blockwise_shift_scale.decompress(data, scale, offset)
        agree("constexpr_blockwise_shift_scale", expected, data=data, scale=scale, offset=offset)
        sparse = iOS18.constexpr_sparse_blockwise_shift_scale.decompress(mask, nonzero, scale, offset)
        given = {"data_mask": mask, "nonzero_data": nonzero, "scale": scale, "offset": offset}
        agree("constexpr_sparse_blockwise_shift_scale", sparse, **given)


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("vector", [1, 3])
def test_tables_of_blocks(rank: int, vector: int) -> None:
    random, (blocks, shape) = np.random.default_rng(0), shapes(rank)
    lut = random.random((*blocks, 8, vector)).astype(np.float16)
    indices, mask = random.integers(0, 8, shape).astype(np.uint8), random.integers(0, 2, shape).astype(np.uint8)
    nonzero = indices[mask != 0]
    for axis in (*range(-rank, rank), *([None] if vector == 1 else [])):
        expected = iOS18.constexpr_lut_to_dense.decompress(indices, lut, axis)
        agree("constexpr_lut_to_dense", expected, indices=indices, lut=lut, vector_axis=axis)
        sparse = iOS18.constexpr_lut_to_sparse.decompress(mask, nonzero, lut, axis)
        given = {"indices_mask": mask, "indices_nonzero_data": nonzero, "lut": lut, "vector_axis": axis}
        agree("constexpr_lut_to_sparse", sparse, **given)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_packed_tables(bits: int) -> None:
    random = np.random.default_rng(0)
    lut, shape = random.random(1 << bits).astype(np.float16), (7, 5)
    indices = packing.pack_elements_into_bits(random.integers(0, 1 << bits, 35).astype(np.uint8), bits)
    expected = iOS16.constexpr_lut_to_dense.decompress(lut, indices, shape)
    agree("constexpr_lut_to_dense", expected, lut=lut, indices=indices, shape=np.array(shape, np.uint32))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("scalar", [True, False])
def test_affine(axis: int, scalar: bool) -> None:
    random, shape = np.random.default_rng(0), (3, 4, 5)
    data = random.integers(0, 256, shape).astype(np.uint8)
    size = () if scalar else (shape[axis],)
    scale, zero_point = random.random(size).astype(np.float16), random.integers(0, 256, size).astype(np.uint8)
    expected = iOS16.constexpr_affine_dequantize.decompress(data, zero_point, scale, axis)
    given = {"quantized_data": data, "zero_point": zero_point, "scale": scale, "axis": axis}
    agree("constexpr_affine_dequantize", expected, **given)


def test_elements_beyond_one_slab() -> None:
    """Large weights are worked on in pieces."""
    random, elements = np.random.default_rng(0), (1 << 20) + 13
    for bits in (1, 3, 6):
        values = random.integers(0, 1 << bits, elements).astype(np.uint8)
        packed = np.packbits(np.unpackbits(values[:, None], axis=1, count=bits, bitorder="little"), bitorder="little")
        np.testing.assert_array_equal(decompress.unpack_bits(packed, bits, elements), values)
    lut = random.random((1, 4, 1)).astype(np.float16)
    indices = random.integers(0, 4, elements).astype(np.uint8)
    np.testing.assert_array_equal(decompress.looked_up(indices, lut), lut[0, indices, 0])


MASK, INDICES = np.array([1, 0, 1], np.uint8), np.array([0, 1], np.uint8)
TABLE = np.zeros((1, 2, 1), np.float16)
DAMAGED: dict[str, tuple[str, dict[str, np.ndarray], str]] = {
    "too few elements": (
        "constexpr_sparse_to_dense",
        {"mask": MASK, "nonzero_data": np.ones(1, np.float16)},
        "2 bits set for 1 stored",
    ),
    "no such table entry": (
        "constexpr_lut_to_dense",
        {"indices": np.array([0, 2], np.uint8), "lut": TABLE},
        "index 2 into 2 values",
    ),
    "blocks that do not fit": (
        "constexpr_lut_to_dense",
        {"indices": np.zeros(3, np.uint8), "lut": np.zeros((2, 2, 1), np.float16)},
        r"\[2\] blocks do not fit shape \[3\]",
    ),
    "vectors along no axis": (
        "constexpr_lut_to_dense",
        {"indices": INDICES, "lut": np.zeros((1, 2, 2), np.float16)},
        "cannot run along axis None",
    ),
    "offsets that do not fit": (
        "constexpr_blockwise_shift_scale",
        {"data": INDICES, "scale": np.ones(2, np.float16), "offset": np.ones(1, np.uint8)},
        "do not fit scales",
    ),
    "no scale": ("constexpr_blockwise_shift_scale", {"data": INDICES}, "has no parameter 'scale'"),
    "a cast to another type": (
        "constexpr_cast",
        {"source_val": np.ones(2, np.float16), "output_dtype": np.array("int8")},
        "cannot be cast to int8",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_data_that_do_not_agree(name: str) -> None:
    operation, data, match = DAMAGED[name]
    with pytest.raises(ValueError, match=match):
        decompress.decompressed(operation, data, 1 << 20)


# The example in the definition of constexpr_sparse_to_dense: elements 2 and 3 of 5 are set.
def test_sparse_weight_of_the_definition() -> None:
    mask = np.array([0b01100], np.uint8)
    assert decompress.sparse_to_dense(np.array([7.0, 8.0]), mask, (5,)).tolist() == [0, 0, 7, 8, 0]
    with pytest.raises(ValueError, match="2 bits set for 1"):
        decompress.sparse_to_dense(np.array([7.0]), mask, (5,))
    with pytest.raises(ValueError, match="after the last element"):
        decompress.mask_bits(np.array([0b11100], np.uint8), (4,))


# The example in the definition of constexpr_lut_to_dense, with 11 for the fifth index; and indices across bytes.
def test_palettized_weight_of_the_definition() -> None:
    lut = np.array([10.0, 11.0, 12.0, 13.0])
    indices = np.array([0b01101100, 0b11], np.uint8)
    assert decompress.lut_to_dense(lut, indices, (5,)).tolist() == [10, 13, 12, 11, 13]
    six_bits = np.array([0b11_000001, 0b0000], np.uint8)  # 1, then 0b000011
    assert decompress.lut_to_dense(np.arange(64), six_bits, (2,)).tolist() == [1, 3]
