"""The arithmetic of MIL's compressed weights (the iOS16 `constexpr_*` operations), in NumPy.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS16/constexpr_ops.py. Used to translate and to inspect, so it
must know neither ONNX nor packages. Data that do not agree raise a ValueError that says what does not fit: a damaged
mask would otherwise move weights to other places without a word.
"""

from collections.abc import Sequence

import numpy as np


def mask_bits(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The mask of a sparse weight, True where an element is stored. `mask` has a bit an element, low bit first.

    The last byte's padding bits are no elements: a set one means that mask and shape do not belong together.
    """
    elements = int(np.prod(shape, dtype=np.int64))
    if mask.size != -(-elements // 8):
        raise ValueError(f"a mask of {mask.size} bytes does not fit shape {list(shape)}")
    bits = np.unpackbits(mask, bitorder="little").astype(bool)
    if bits[elements:].any():
        raise ValueError(f"the mask has bits set after the last element of shape {list(shape)}")
    return bits[:elements].reshape(shape)


def sparse_to_dense(nonzero_data: np.ndarray, mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`nonzero_data` in row-major order where `mask` has a bit, zero elsewhere."""
    stored = mask_bits(mask, shape)
    if np.count_nonzero(stored) != nonzero_data.size:
        raise ValueError(f"the mask has {np.count_nonzero(stored)} bits set for {nonzero_data.size} stored elements")
    dense = np.zeros(tuple(shape), nonzero_data.dtype)
    dense[stored] = nonzero_data
    return dense


def affine_dequantize(data: np.ndarray, zero_point: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """`scale * (data - zero_point)`, where a vector of scales or zero points runs along `axis`; Float32."""

    def along_axis(parameter: np.ndarray) -> np.ndarray:
        shape = [1] * data.ndim
        shape[axis] = parameter.size if parameter.ndim else 1
        return parameter.astype(np.float32).reshape(shape)

    return along_axis(scale) * (data.astype(np.float32) - along_axis(zero_point))


def lut_to_dense(lut: np.ndarray, indices: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`lut[index]` for packed indices of log2(len(lut)) bits each, low bit first, running on across bytes."""
    bits_each = int(lut.size).bit_length() - 1
    elements = int(np.prod(shape, dtype=np.int64))
    if lut.size != 1 << bits_each or indices.size != -(-bits_each * elements // 8):
        raise ValueError(f"{indices.size} bytes of indices into {lut.size} values do not fit shape {list(shape)}")
    bits = np.unpackbits(indices, bitorder="little")[: bits_each * elements].reshape(elements, bits_each)
    return lut[bits @ (1 << np.arange(bits_each))].reshape(shape)
