"""The values of an ML program: their types, and constants as they stand in it or in a weight file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from coreml_prune_bench.mlprogram.decompress import unpack_bits

Shape = tuple[int | None, ...]
"""None where a dimension is not fixed by the program."""

MIL_TO_NUMPY = {
    "fp16": np.float16,
    "fp32": np.float32,
    "fp64": np.float64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
}

SUB_BYTE_BITS = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}
"""Element types that are packed without gaps, the lowest bits first. They are read into bytes."""

MOST_BYTES = 8 << 30
"""Of one value. A program that declares or computes a larger one is refused before memory is asked for."""


def numpy_name(dtype: str) -> str:
    """NumPy's word for a MIL element type; MIL's own where NumPy has no such type."""
    return np.dtype(MIL_TO_NUMPY[dtype]).name if dtype in MIL_TO_NUMPY else dtype


@dataclass(frozen=True)
class TensorType:
    """`dtype` is MIL's word: fp16, fp32, int32, uint8, bool, string...

    A list has the type of its elements and, in `length`, how many there are (None: it grows). `rank_known` is False
    where the program leaves even the number of dimensions open; `shape` is then empty.
    """

    dtype: str
    shape: Shape
    kind: Literal["tensor", "list", "state", "dictionary"] = "tensor"
    length: int | None = None
    rank_known: bool = True

    @property
    def fixed(self) -> bool:
        return self.rank_known and None not in self.shape

    @property
    def fixed_shape(self) -> tuple[int, ...]:
        """The shape of a constant, which has no open size."""
        return tuple(size or 0 for size in self.shape)


@dataclass(frozen=True)
class Reference:
    """Another operation's output, or an input of the program."""

    name: str


@dataclass(frozen=True, eq=False)
class Immediate:
    """A constant that stands in the program itself: an array, or a str for MIL's strings, or a tuple for its lists."""

    type: TensorType
    value: np.ndarray | str | tuple[Any, ...]


@dataclass(frozen=True)
class Stored:
    """A constant whose elements stand in a weight file; `Weights` reads it. `owner` is the value that it belongs to."""

    type: TensorType
    file: str
    offset: int
    owner: str = ""


Constant = Immediate | Stored
Argument = Reference | Immediate | Stored


@dataclass(frozen=True)
class NamedType:
    name: str
    type: TensorType


def packed_bytes(dtype: str, elements: int) -> int:
    """Bytes that so many elements of a MIL type take in a file."""
    if dtype in SUB_BYTE_BITS:
        return (elements * SUB_BYTE_BITS[dtype] + 7) // 8
    return elements * np.dtype(MIL_TO_NUMPY[dtype]).itemsize


def unpacked(data: np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes as they stand in a file, as an array; elements of less than a byte in a byte each."""
    if dtype not in SUB_BYTE_BITS:
        return data.view(np.dtype(MIL_TO_NUMPY[dtype]).newbyteorder("<")).reshape(shape)
    values = unpack_bits(data, SUB_BYTE_BITS[dtype], math.prod(shape)).reshape(shape)
    # Two's complement in four bits.
    return (values ^ 8).view(np.int8) - np.int8(8) if dtype == "int4" else values


def has_nan(array: np.ndarray) -> bool:
    if array.dtype.kind != "f" or not array.size:
        return False
    if array.dtype.itemsize == 2:  # NumPy computes in Float16 element by element: bits are ten times as fast
        return bool(((array.view(np.uint16) & 0x7FFF) > 0x7C00).any())
    return bool(np.isnan(array.min()))
