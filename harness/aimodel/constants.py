"""The constants of an unpacked `.aimodel`, in place of the weight files of an ML program."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coreml_prune_bench.aimodel.process import DAMAGED
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.values import (
    Constant,
    Immediate,
    Stored,
    TensorType,
    has_nan,
    packed_bytes,
    unpacked,
)
from coreml_prune_bench.mlprogram.weights import Weights

ELEMENT_TYPES = {
    "f16": "fp16",
    "f32": "fp32",
    "f64": "fp64",
    "i1": "bool",
    "index": "int64",
    **{f"{sign}i{bits}": f"{word}int{bits}" for sign, word in (("s", ""), ("u", "u")) for bits in (8, 16, 32, 64)},
    **{f"ui{bits}": f"uint{bits}" for bits in (1, 2, 3, 4, 6)},
    "si4": "int4",
}
"""MIL's words for MLIR's. What is not here has no place in an ML program: bf16, f8E4M3FN, complex numbers."""


SPLAT = "splat"
"""In place of a file's name: one element stands for all."""


@dataclass(frozen=True)
class UnpackedWeights(Weights):
    """`stored`: uint8, all constants as they stand one after the other. bytecode: the file that they are from."""

    bytecode: Path = Path()
    stored: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8), compare=False)

    def package_bytes(self) -> int:
        return self.bytecode.stat().st_size

    def files(self) -> list[Path]:
        return [self.bytecode]

    def size_bytes(self, stored: Stored) -> int:
        return packed_bytes(stored.type.dtype, 1 if stored.file == SPLAT else math.prod(stored.type.fixed_shape))

    def array(self, constant: Constant) -> np.ndarray:
        if isinstance(constant, Immediate):
            return np.asarray(constant.value)
        size = self.size_bytes(constant)
        data = self.stored[constant.offset : constant.offset + size]
        if data.size != size:
            raise PackageError(f"{self.bytecode}: constant {constant.owner!r} is cut short; {DAMAGED}")
        if constant.file == SPLAT:
            array = np.broadcast_to(elements(data, TensorType(constant.type.dtype, ())), constant.type.fixed_shape)
        else:
            array = elements(data, constant.type)
        if has_nan(array):
            raise PackageError(f"{self.bytecode}: constant {constant.owner!r} has elements that are not a number (NaN)")
        return array


def elements(data: np.ndarray, type_: TensorType) -> np.ndarray:
    """uint8 as they stand in memory, as the constant's elements in its shape; of 64 bits, as the nearest of 32."""
    return unpacked(data, type_.dtype, type_.fixed_shape)
