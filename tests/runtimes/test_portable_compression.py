"""Compressed weights against what coremltools makes of the same ones: its packages, operations and weight files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools import libmilstoragepython
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.ops.defs import iOS16, iOS18
from coremltools.optimize import _utils as packing

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram import decompress
from coreml_prune_bench.mlprogram.summary import WeightSummary, read_package
from coreml_prune_bench.mlprogram.values import Stored, TensorType
from coreml_prune_bench.mlprogram.weights import Weights
from coreml_prune_bench.runtimes.portable import load
from tests.runtimes.packages import from_mil, from_torch

X = np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float16).astype(np.float32)

# --- packages


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(4, 16, 3, bias=False)  # 576 weights
    path = tmp_path_factory.mktemp("dense") / "m.mlpackage"
    options = {"minimum_deployment_target": ct.target.iOS18, "compute_precision": ct.precision.FLOAT16}
    return from_torch(path, network, X.shape, **options)


def prune(model: Any) -> Any:
    config = cto.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0)
    return cto.prune_weights(model, cto.OptimizationConfig(config))


def quantize(model: Any, *, joint: bool = False, **options: Any) -> Any:
    config = cto.OpLinearQuantizerConfig(weight_threshold=0, **options)
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(config), joint_compression=joint)


def palettize(model: Any, *, joint: bool = False, mode: str = "uniform", **options: Any) -> Any:
    config = cto.OpPalettizerConfig(mode=mode, weight_threshold=0, **options)
    return cto.palettize_weights(model, cto.OptimizationConfig(config), joint_compression=joint)


GROUPS = {"granularity": "per_grouped_channel", "group_size": 4}
BLOCKS = {"granularity": "per_block", "block_size": 2}
SYMMETRIC = {"mode": "linear_symmetric"}

# How a package is compressed, how `inspect` calls that, and the bytes of its weight: all 576 elements, then what
# belongs to the blocks. Tables of a few values stand in the program itself.
COMPRESSED: dict[str, tuple[Callable[[Any], Any], str, int]] = {
    "8 bits, per channel": (lambda m: quantize(m, **SYMMETRIC), "blockwise-quantized", 576 + 32),
    "4 bits, per block": (
        lambda m: quantize(m, mode="linear", dtype="int4", **BLOCKS),
        "blockwise-quantized",
        288 + 32 * 2 + 16,
    ),
    "4 bits, unsigned, per tensor": (
        lambda m: quantize(m, mode="linear", dtype="uint4", granularity="per_tensor"),
        "blockwise-quantized",
        288,
    ),
    "1 bit": (lambda m: palettize(m, nbits=1), "palettized", 72),
    "3 bits": (lambda m: palettize(m, nbits=3), "palettized", 216),
    "6 bits": (lambda m: palettize(m, nbits=6), "palettized", 432 + 64 * 2),
    "4 bits, per grouped channel": (lambda m: palettize(m, nbits=4, **GROUPS), "palettized", 288 + 4 * 16 * 2),
    "vectors": (lambda m: palettize(m, nbits=2, mode="kmeans", cluster_dim=2), "palettized", 72),
    "scaled channels": (
        lambda m: palettize(m, nbits=4, enable_per_channel_scale=True),
        "palettized + blockwise-quantized",
        288 + 36 * 16 * 2 + 36 * 2,  # a table for each position of the kernel
    ),
    "quantized tables": (
        lambda m: quantize(palettize(m, nbits=4, **GROUPS), joint=True, granularity="per_tensor", **SYMMETRIC),
        "palettized + blockwise-quantized",
        288 + 4 * 16,
    ),
    "sparse": (prune, "sparse", 72 + 288 * 2),
    "sparse, 4 bits": (
        lambda m: palettize(prune(m), joint=True, nbits=4, **GROUPS),
        "sparse + palettized",
        72 + 144 + 4 * 16 * 2,
    ),
    "sparse, 8 bits": (
        lambda m: quantize(prune(m), joint=True, **SYMMETRIC),
        "sparse + blockwise-quantized",
        72 + 288 + 32,
    ),
    "sparse, 4 bits, per block": (
        lambda m: quantize(prune(m), joint=True, dtype="int4", **BLOCKS, **SYMMETRIC),
        "sparse + blockwise-quantized",
        72 + 144 + 32 * 2,
    ),
    "sparse, quantized tables": (
        lambda m: quantize(palettize(prune(m), joint=True, nbits=4), joint=True, granularity="per_tensor", **SYMMETRIC),
        "sparse + palettized + blockwise-quantized",
        72 + 144 + 16,
    ),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_package_computes_what_coremltools_decompresses(name: str, dense: Path, tmp_path: Path) -> None:
    compress, storage, size_bytes = COMPRESSED[name]
    compressed = compress(ct.models.MLModel(str(dense), skip_model_load=True))
    decompressed = cto.decompress_weights(compressed)
    compressed.save(str(tmp_path / "c.mlpackage"))
    decompressed.save(str(tmp_path / "d.mlpackage"))
    result, expected = (load(tmp_path / f"{n}.mlpackage", threads=1).predict({"x": X})["y"] for n in "cd")
    np.testing.assert_array_equal(result, expected)

    (weight,) = read_package(tmp_path / "c.mlpackage").weights
    (plain,) = read_package(tmp_path / "d.mlpackage").weights
    assert (weight.storage, plain.storage) == (storage, "dense")
    assert (weight.shape, weight.dtype, weight.elements) == (plain.shape, plain.dtype, plain.elements)
    if storage.startswith("sparse"):
        assert weight.sparsity == 0.5  # of its mask: what is stored may be quantized to zero
    else:
        assert weight.zeros == plain.zeros
    assert weight.size_bytes == size_bytes


def test_vectors_of_a_sparse_weight(tmp_path: Path) -> None:
    """The example in the definition of constexpr_lut_to_sparse."""
    mask = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]])
    indices = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1])

    def build(x: Any) -> Any:
        one_bit = types.nptype_from_builtin(types.uint1)
        new_mask, nonzero = mb.constexpr_lut_to_sparse(
            indices_mask=mask.astype(one_bit),
            indices_nonzero_data=indices.astype(one_bit),
            lut=np.array([2, 2, 3, 3], np.float32).reshape(1, 1, 2, 2),
            vector_axis=0,
        )
        return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=nonzero, mask=new_mask))

    expected = np.zeros((4, 6), np.float32)
    expected[mask != 0] = indices + 2
    path = from_mil(tmp_path / "m.mlpackage", build, (8, 6), opset=ct.target.iOS18)
    (result,) = load(path, threads=1).predict({"x": np.ones((8, 6), np.float32)}).values()
    np.testing.assert_array_equal(result, expected.repeat(2, axis=0) + 1)
    (weight,) = read_package(path).weights
    assert (weight.storage, weight.zeros) == ("sparse + palettized", 30)


def test_weight_that_is_cast(tmp_path: Path) -> None:
    half = np.array([1.5, 0.1, 0.0], np.float16)
    path = from_mil(
        tmp_path / "m.mlpackage", lambda x: mb.add(x=x, y=mb.constexpr_cast(source_val=half, output_dtype="fp32")), (3,)
    )
    (result,) = load(path, threads=1).predict({"x": np.zeros(3, np.float32)}).values()
    np.testing.assert_array_equal(result, half.astype(np.float32))
    (weight,) = read_package(path).weights
    assert (weight.storage, weight.dtype, weight.zeros) == ("cast", "float32", 1)


def test_weight_of_a_layer_is_found_by_its_name(dense: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential()
    network.add_module("first", torch.nn.Conv2d(4, 16, 3))
    path = from_torch(tmp_path / "m.mlpackage", network, X.shape, minimum_deployment_target=ct.target.iOS18)
    palettize(prune(ct.models.MLModel(str(path), skip_model_load=True)), joint=True, nbits=4).save(str(path))
    weight: WeightSummary = read_package(path).weight_of_layer("first")
    assert (weight.shape, weight.storage) == ((16, 4, 3, 3), "sparse + palettized")


# --- arithmetic


def shapes(rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks along each axis, and the shape of what has them."""
    blocks = np.random.default_rng(rank).integers(1, 4, rank)
    return blocks, blocks * np.arange(1, rank + 1)


def agree(operation: str, expected: Any, **data: Any) -> None:
    arrays = {name: np.asarray(value) for name, value in data.items() if value is not None}
    expected = expected if isinstance(expected, tuple) else (expected,)
    for result, value in zip(decompress.decompressed(operation, arrays), expected, strict=True):
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
        decompress.decompressed(operation, data)


def test_damaged_weight_of_a_package(tmp_path: Path) -> None:
    data = np.arange(64, dtype=np.int8).reshape(8, 8)

    def build(x: Any) -> Any:
        return mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=data, scale=np.ones((1, 1), np.float32)))

    path = from_mil(tmp_path / "m.mlpackage", build, (8, 8), opset=ct.target.iOS18)
    (model,) = path.rglob("*.mlmodel")
    spec = ct.utils.load_spec(str(path))
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    (weight,) = [o for o in block.operations if o.type.startswith("constexpr")]
    weight.outputs[0].type.tensorType.dimensions[0].constant.size = 4
    model.write_bytes(spec.SerializeToString())
    for read in (load, read_package):
        with pytest.raises(PackageError, match=r"has shape \[8, 8\].* declared as \[4, 8\]"):
            read(path)


# --- weight files


@pytest.mark.parametrize("dtype", ["int4", "uint1", "uint2", "uint3", "uint4", "uint6", "int8", "uint8"])
def test_elements_of_less_than_a_byte(dtype: str, tmp_path: Path) -> None:
    type_ = types.string_to_builtin(dtype)
    limits = types.type_mapping.builtin_to_range(type_)
    random = np.random.default_rng(0)
    writer = libmilstoragepython._BlobStorageWriter(str(tmp_path / "weight.bin"))
    written = {}
    for size in (1, 7, 8, 9, 101):
        values = random.integers(limits.low, limits.high + 1, size).astype(types.nptype_from_builtin(type_))
        written[getattr(writer, f"write_{dtype}_data")(values)] = values
    del writer  # closes the file
    weights = Weights(tmp_path, tmp_path)
    for offset, values in written.items():
        stored = Stored(TensorType(dtype, values.shape), "@model_path/weight.bin", offset)
        np.testing.assert_array_equal(weights.array(stored), values)


# --- values that are quantized while a model runs

# Halves, which round to even, and values beyond the range. [1, 3, 4]
VALUES = np.array([[-9e4, -64.5, -2.5, -1.5], [-0.5, 0.0, 0.5, 1.5], [2.5, 3.25, 63.5, 9e4]], np.float32)[np.newaxis]
PARAMETERS: dict[str, dict[str, Any]] = {
    "a scalar": {"scale": np.float32(0.5)},
    "a scalar and a zero point": {"scale": np.float32(2), "zero_point": 7},
    "rows": {"scale": np.float32([0.5, 1, 2]), "zero_point": [3, 0, 9], "axis": 1},
    "columns": {"scale": np.float32([0.5, 1, 2, 4]), "axis": -1},
    "samples": {"scale": np.float32([0.5]), "zero_point": [1], "axis": 0},
}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_quantized_values(name: str, dtype: str, tmp_path: Path) -> None:
    given = dict(PARAMETERS[name])
    if "zero_point" in given:
        given["zero_point"] = np.array(given["zero_point"], dtype)

    def build(x: Any) -> Any:
        quantized = mb.quantize(input=x, output_dtype=dtype, **given)
        return mb.cast(x=quantized, dtype="int32"), mb.dequantize(input=quantized, **given)

    model = load(from_mil(tmp_path / "m.mlpackage", build, VALUES.shape), threads=1)
    scale, zero_point = (
        packing.promote_rank_to_same_as_data(np.asarray(given.get(key, default)), VALUES, given.get("axis"))
        for key, default in (("scale", 1), ("zero_point", np.zeros_like(given["scale"])))
    )
    quantized = packing.quantize_by_scale_and_zp(VALUES, scale, zero_point, dtype)
    dequantized = packing.dequantize_by_scale_and_zp(quantized, scale, zero_point)
    for result, expected in zip(model.predict({"x": VALUES}).values(), (quantized, dequantized), strict=True):
        np.testing.assert_array_equal(result, expected)
    assert model.any_batch is (name != "samples")
    twice = model.predict_batch({"x": np.concatenate([VALUES, VALUES])}).values()
    for result, expected in zip(twice, (quantized, dequantized), strict=True):
        np.testing.assert_array_equal(result, np.concatenate([expected, expected]))
