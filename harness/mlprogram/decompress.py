"""The arithmetic of MIL's compressed weights, the `constexpr_*` operations of iOS16 and of iOS18, in NumPy.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS16/constexpr_ops.py and iOS18/compression.py. Used to read, to
translate and to inspect, so it must know neither ONNX nor packages. Data that do not agree raise a ValueError that says
what does not fit: a damaged mask would otherwise move weights to other places without a word.
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

OPERATIONS = (
    "constexpr_affine_dequantize",
    "constexpr_blockwise_shift_scale",
    "constexpr_cast",
    "constexpr_lut_to_dense",
    "constexpr_lut_to_sparse",
    "constexpr_sparse_blockwise_shift_scale",
    "constexpr_sparse_to_dense",
)

# Elements that are worked on at once where that takes several times their own memory. A multiple of 8: a slab of
# packed elements then begins with a byte.
_SLAB = 1 << 20


def decompressed(operation: str, data: Mapping[str, np.ndarray], elements: int) -> tuple[np.ndarray, ...]:
    """What one of OPERATIONS gives: an array for each output. `data` has its parameters by their MIL names.

    Two operations have a name in common with an older one, which has a parameter more, `shape`. Nothing is made of more
    than `elements`, which an output is declared to have at most.
    """
    try:
        _check_vectors(data, elements)
        return _decompressed(operation, data)
    except KeyError as error:
        raise ValueError(f"{operation} has no parameter {error}") from error


def _decompressed(operation: str, data: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    match operation:
        case "constexpr_affine_dequantize":
            return (affine_dequantize(data["quantized_data"], data["zero_point"], data["scale"], int(data["axis"])),)
        case "constexpr_blockwise_shift_scale":
            return (blockwise_shift_scale(data["data"], data["scale"], data.get("offset")),)
        case "constexpr_cast":
            return (cast(data["source_val"], str(data["output_dtype"])),)
        case "constexpr_lut_to_dense" if "shape" in data:
            return (lut_to_dense(data["lut"], data["indices"], _sizes(data["shape"])),)
        case "constexpr_lut_to_dense":
            return (looked_up(data["indices"], data["lut"], _axis(data)),)
        case "constexpr_lut_to_sparse":
            mask = stored(data, "indices_mask")
            indices = _filled(mask, data["indices_nonzero_data"])
            return _lut_to_sparse(mask, indices, data["lut"], _axis(data))
        case "constexpr_sparse_blockwise_shift_scale":
            mask = stored(data, "data_mask")
            dense = _filled(mask, data["nonzero_data"])
            return data["data_mask"], blockwise_shift_scale(dense, data["scale"], data.get("offset"))[mask]
        case "constexpr_sparse_to_dense":
            return (_filled(stored(data), data["nonzero_data"]),)
    raise ValueError(f"{operation} is no compressed weight")


def _check_vectors(data: Mapping[str, np.ndarray], elements: int) -> None:
    """A table of vectors makes several elements of an index, so that the two together can be small and give much."""
    indices = data.get("indices", data.get("indices_mask"))
    if indices is None or "shape" in data or "lut" not in data:
        return
    made = indices.size * data["lut"].shape[-1] if data["lut"].ndim else indices.size
    if made > elements:
        raise ValueError(f"its table makes {made:,} elements of its indices, {elements:,} are declared")


def _sizes(shape: np.ndarray) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)


def _axis(data: Mapping[str, np.ndarray]) -> int | None:
    return int(data["vector_axis"]) if "vector_axis" in data else None


# --- packed elements


def unpack_bits(packed: np.ndarray, bits: int, elements: int) -> np.ndarray:
    """Elements of so many bits each, one to a byte. They are packed without gaps, the lowest bit first."""
    values = np.zeros(elements, np.uint8)
    for first in range(0, elements, _SLAB):
        slab = values[first : first + _SLAB]
        start = first * bits // 8
        flat = np.unpackbits(packed[start : start + -(-slab.size * bits // 8)], bitorder="little")
        for bit in range(bits):
            slab |= flat[bit : slab.size * bits : bits] << bit
    return values


# --- sparse


def stored(data: Mapping[str, np.ndarray], parameter: str = "mask") -> np.ndarray:
    """Where a sparse operation's data has an element: True there, in the shape of the dense weight."""
    if "shape" in data:
        return mask_bits(data[parameter], _sizes(data["shape"]))
    return data[parameter] != 0


def mask_bits(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The mask of a sparse weight, True where an element is stored. `mask` has a bit an element, low bit first.

    The last byte's padding bits are no elements: a set one means that mask and shape do not belong together.
    """
    elements = prod(shape)
    if mask.size != -(-elements // 8):
        raise ValueError(f"a mask of {mask.size} bytes does not fit shape {list(shape)}")
    bits = np.unpackbits(mask, bitorder="little").view(bool)
    if bits[elements:].any():
        raise ValueError(f"the mask has bits set after the last element of shape {list(shape)}")
    return bits[:elements].reshape(shape)


def sparse_to_dense(nonzero_data: np.ndarray, mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`nonzero_data` in row-major order where `mask` has a bit, zero elsewhere."""
    return _filled(mask_bits(mask, shape), nonzero_data)


def _filled(mask: np.ndarray, nonzero_data: np.ndarray) -> np.ndarray:
    if np.count_nonzero(mask) != nonzero_data.size:
        raise ValueError(f"the mask has {np.count_nonzero(mask)} bits set for {nonzero_data.size} stored elements")
    dense = np.zeros(mask.shape, nonzero_data.dtype)
    dense[mask] = nonzero_data
    return dense


# --- palettized


def lut_to_dense(lut: np.ndarray, indices: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`lut[index]` for packed indices of log2(len(lut)) bits each."""
    bits, elements = int(lut.size).bit_length() - 1, prod(shape)
    if lut.size != 1 << bits or not 1 <= bits <= 8 or indices.size != -(-bits * elements // 8):
        raise ValueError(f"{indices.size} bytes of indices into {lut.size} values do not fit shape {list(shape)}")
    return looked_up(unpack_bits(indices, bits, elements), lut.reshape(1, -1, 1)).reshape(shape)


def looked_up(indices: np.ndarray, lut: np.ndarray, vector_axis: int | None = None) -> np.ndarray:
    """Each index replaced by what stands at it in its block's table: a value, or a vector that runs along an axis.

    `lut` is [blocks along each axis of `indices`, palettes, vector]; `vector_axis` counts where the vector is longer
    than 1.
    """
    *blocks, palettes, vector = lut.shape
    _check_blocks(indices.shape, blocks)
    if indices.size and indices.max() >= palettes:
        raise ValueError(f"there is an index {indices.max()} into {palettes} values")
    entries = lut.reshape(-1, vector)
    # For each position along each axis, its share of where the table begins in `entries`.
    strides = [palettes * prod(blocks[axis + 1 :]) for axis in range(len(blocks))]
    sizes = zip(indices.shape, blocks, strides, strict=True)
    first, *others = np.ix_(*(np.arange(size) // max(size // count, 1) * stride for size, count, stride in sizes))
    dense = np.empty((*indices.shape, vector), lut.dtype)
    rows = max(1, _SLAB // max(1, prod(indices.shape[1:])))
    for start in range(0, len(indices), rows):
        slab = slice(start, start + rows)
        dense[slab] = entries[sum(others, first[slab] + indices[slab])]
    if vector == 1:
        return dense.reshape(indices.shape)
    return _vectors_along(dense, vector_axis)


def _vectors_along(dense: np.ndarray, vector_axis: int | None) -> np.ndarray:
    """[..., vector] with the vectors one after the other along an axis."""
    rank, vector = dense.ndim - 1, dense.shape[-1]
    if vector_axis is None or not -rank <= vector_axis < rank:
        raise ValueError(f"vectors of {vector} elements cannot run along axis {vector_axis} of {rank}")
    axis = vector_axis % rank
    shape = list(dense.shape[:-1])
    shape[axis] *= vector
    return np.moveaxis(dense, -1, axis + 1).reshape(shape)


def _lut_to_sparse(
    mask: np.ndarray, indices: np.ndarray, lut: np.ndarray, vector_axis: int | None
) -> tuple[np.ndarray, ...]:
    """The mask of the looked up elements, and those that are stored."""
    dense = looked_up(indices, lut, vector_axis)
    mask = mask if vector_axis is None else mask.repeat(lut.shape[-1], axis=vector_axis)
    return mask.astype(np.uint8), dense[mask]


# --- quantized


def affine_dequantize(data: np.ndarray, zero_point: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """`scale * (data - zero_point)`, where a vector of scales or zero points runs along `axis`; of `scale`'s type."""

    def along_axis(parameter: np.ndarray) -> np.ndarray:
        shape = [1] * data.ndim
        shape[axis] = parameter.size if parameter.ndim else 1
        return parameter.astype(np.float32).reshape(shape)

    dense = data.astype(np.float32)
    dense -= along_axis(zero_point)
    dense *= along_axis(scale)
    return dense.astype(scale.dtype, copy=False)


def blockwise_shift_scale(data: np.ndarray, scale: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
    """`scale * (data - offset)`, where each scale and offset is that of a block of elements; of `scale`'s type."""
    _check_blocks(data.shape, scale.shape)
    if offset is not None and offset.shape != scale.shape:
        raise ValueError(f"offsets of shape {list(offset.shape)} do not fit scales of shape {list(scale.shape)}")
    blocks = zip(data.shape, scale.shape, strict=True)
    # [blocks along axis 0, elements of each, blocks along axis 1, elements of each, ...]
    dense = data.reshape([n for size, count in blocks for n in (count, size // max(count, 1))]).astype(np.float32)
    one_each = [n for count in scale.shape for n in (count, 1)]
    if offset is not None:
        dense -= offset.reshape(one_each).astype(np.float32)
    dense *= scale.reshape(one_each).astype(np.float32)
    return dense.astype(scale.dtype, copy=False).reshape(data.shape)


def _check_blocks(shape: Sequence[int], blocks: Sequence[int]) -> None:
    if len(shape) != len(blocks) or any(not n or size % n for size, n in zip(shape, blocks, strict=True)):
        raise ValueError(f"{list(blocks)} blocks do not fit shape {list(shape)}")


def cast(source: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "fp32":
        raise ValueError(f"a weight cannot be cast to {dtype}")
    return source.astype(np.float32)
