"""Compressed weights, decompressed while translating: they become Float32 initializers.

Definition: coremltools/converters/mil/mil/ops/defs/iOS16/constexpr_ops.py. The operations of the same name in iOS18
take other parameters and are refused.
"""

from collections.abc import Callable

import numpy as np

from harness.errors import PackageError
from harness.runtimes.portable import decompress
from harness.runtimes.portable.graph import Call
from harness.runtimes.portable.registry import operation


def _decompressed(call: Call, compute: Callable[[], np.ndarray]) -> None:
    try:
        call.define(compute())
    except ValueError as error:
        raise PackageError(f"{call.graph.program.package}: weight {call.output}: {error}") from error


def _require(call: Call, *parameters: str) -> None:
    missing = [parameter for parameter in parameters if parameter not in call.operation.attributes]
    if missing:
        raise call.unsupported(f"it has no {missing[0]!r}, so it is not the operation of iOS16")


@operation("constexpr_sparse_to_dense")
def sparse_to_dense(call: Call) -> None:
    _require(call, "nonzero_data", "mask", "shape")
    shape = call.ints("shape", [])
    nonzero_data, mask = call.stored_array("nonzero_data"), call.stored_array("mask")
    _decompressed(call, lambda: decompress.sparse_to_dense(nonzero_data, mask, shape))


@operation("constexpr_affine_dequantize")
def affine_dequantize(call: Call) -> None:
    _require(call, "quantized_data", "zero_point", "scale", "axis")
    data, zero_point, scale = (call.stored_array(name) for name in ("quantized_data", "zero_point", "scale"))
    _decompressed(call, lambda: decompress.affine_dequantize(data, zero_point, scale, call.integer("axis", 0)))


@operation("constexpr_lut_to_dense")
def lut_to_dense(call: Call) -> None:
    _require(call, "lut", "indices", "shape")
    shape = call.ints("shape", [])
    lut, indices = call.stored_array("lut"), call.stored_array("indices")
    _decompressed(call, lambda: decompress.lut_to_dense(lut, indices, shape))
