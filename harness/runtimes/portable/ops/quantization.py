"""Affine quantization of values that are computed.

Definition: coremltools/converters/mil/mil/ops/defs/iOS17/quantization_ops.py.
"""

from typing import Any

import numpy as np
import onnx
from onnx import helper

from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation

_TYPES = {"int8": onnx.TensorProto.INT8, "uint8": onnx.TensorProto.UINT8}


def _leaves_rows_alone(call: Call) -> bool:
    """A scale along the leading axis would be one for each sample."""
    return call.batched_parameters() == ["input"] and (_is_scalar(call) or _axis(call) != 0)


def _is_scalar(call: Call) -> bool:
    return call.rank("scale") == 0


def _axis(call: Call) -> int:
    return call.integer("axis", 0) % call.rank("input")


@operation("quantize", batch=_leaves_rows_alone)
def quantize(call: Call) -> None:
    """clip(round(input / scale) + zero_point), rounded to even."""
    name = call.text("output_dtype", "")
    if name not in _TYPES:
        raise call.malformed(f"its output_dtype is {name!r}")
    quantized = call.node(
        "QuantizeLinear", [call.tensor("input"), *_parameters(call, name)], part="narrow", **_along(call)
    )
    call.node("Cast", [quantized], to=onnx.TensorProto.INT32)


@operation("dequantize", batch=_leaves_rows_alone)
def dequantize(call: Call) -> None:
    """scale * (input - zero_point)."""
    name = call.type("input").dtype
    if name not in _TYPES:
        raise call.malformed(f"its input is {name}")
    narrow = call.node("Cast", [call.tensor("input")], part="narrow", to=_TYPES[name])
    call.node("DequantizeLinear", [narrow, *_parameters(call, name)], **_along(call))


def _parameters(call: Call, dtype: str) -> list[str]:
    scale = call.array("scale")
    numpy_type = helper.tensor_dtype_to_np_dtype(_TYPES[dtype])
    zero_point = call.array("zero_point") if call.has("zero_point") else np.zeros(scale.shape)
    return [call.tensor("scale"), call.initializer("zero_point", zero_point.astype(numpy_type))]


def _along(call: Call) -> dict[str, Any]:
    return {} if _is_scalar(call) else {"axis": _axis(call)}
