"""Tensors that follow from a shape or from positions.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15 and iOS16 (fill_like), tensor_operation.py.
"""

import numpy as np
import onnx

from coreml_prune_bench.runtimes.portable.graph import Call, onnx_type
from coreml_prune_bench.runtimes.portable.registry import operation
from coreml_prune_bench.runtimes.portable.samples import separable


@operation("fill")
def fill(call: Call) -> None:
    call.node("Expand", [_value(call), call.int64("shape")])


@operation("fill_like", batch=lambda call: call.type("ref_tensor").fixed)
def fill_like(call: Call) -> None:
    if call.type("ref_tensor").fixed:
        value = call.array("value") if call.has("value") else np.array(0, np.float32)
        call.bounded(*call.fixed_shape("ref_tensor"))
        call.define(np.full(call.fixed_shape("ref_tensor"), value))
    else:
        call.node("Expand", [_value(call), call.node("Shape", [call.tensor("ref_tensor")], part="shape")])


def _value(call: Call) -> str:
    return call.tensor("value") if call.has("value") else call.number("value", 0.0)


@operation("range_1d")
def range_1d(call: Call) -> None:
    """start + i * step, as NumPy: ONNX's Range adds up steps, which drifts where they are floats."""
    start, end, step = (call.tensor(parameter) for parameter in ("start", "end", "step"))
    if not call.is_float("start"):
        call.node("Range", [start, end, step])
        return
    distance = call.node("Div", [call.node("Sub", [end, start], part="distance"), step], part="steps")
    length = call.node("Cast", [call.node("Ceil", [distance], part="ceil")], part="length", to=onnx.TensorProto.INT64)
    zero, one = (call.initializer(name, np.array(value, np.int64)) for name, value in (("zero", 0), ("one", 1)))
    counted = call.node("Range", [zero, length, one], part="counted")
    factors = call.node("Cast", [counted], part="factors", to=onnx.TensorProto.FLOAT)
    call.node("Add", [call.node("Mul", [factors, step], part="offsets"), start])


@operation("one_hot", batch=lambda call: _hot_axis(call) != 0 and separable("indices")(call))
def one_hot(call: Call) -> None:
    """on_value where the position along the new axis is the index, so nowhere for an index outside."""
    axis, rank = _hot_axis(call), len(call.shape("indices"))
    indices = call.node("Unsqueeze", [call.tensor("indices"), call.sizes("axis", [axis])], part="unsqueezed")
    column = call.sizes("column", [-1] + [1] * (rank - axis))
    hot = call.node("Equal", [indices, call.node("Reshape", [_positions(call), column], part="along")], part="hot")
    dtype = call.output_type.dtype
    if dtype == "bool":
        on, off = (bool(call.real(name, default)) for name, default in (("on_value", 1), ("off_value", 0)))
        _choose_flag(call, hot, on=on, off=off)
        return
    kind = np.float32 if onnx_type(dtype) == onnx.TensorProto.FLOAT else np.int32
    on_value, off_value = (
        call.initializer(name, np.array(call.real(name, default), kind))
        for name, default in (("on_value", 1), ("off_value", 0))
    )
    call.node("Where", [hot, on_value, off_value])


def _choose_flag(call: Call, hot: str, *, on: bool, off: bool) -> None:
    """ONNX Runtime has no Where for flags."""
    if on == off:
        call.node("Expand", [call.initializer("flag", np.array(on)), call.node("Shape", [hot], part="shape")])
    else:
        call.node("Identity" if on else "Not", [hot])


def _hot_axis(call: Call) -> int:
    return call.integer("axis", -1) % (len(call.shape("indices")) + 1)


def _positions(call: Call) -> str:
    """0 .. one_hot_vector_size - 1"""
    if call.is_constant("one_hot_vector_size"):
        size = call.integer("one_hot_vector_size", 0)
        call.bounded(size)
        return call.initializer("positions", np.arange(size, dtype=np.int32))
    zero, one = (call.initializer(name, np.array(value, np.int32)) for name, value in (("zero", 0), ("one", 1)))
    return call.node("Range", [zero, call.tensor("one_hot_vector_size"), one], part="positions")


@operation("band_part", batch=lambda call: len(call.shape("x")) > 2)
def band_part(call: Call) -> None:
    """Zeros outside a band of the last two dimensions: two triangles, of which a negative bound leaves one whole."""
    lower, upper = call.integer("lower", -1), call.integer("upper", -1)
    x = call.tensor("x")
    if lower < 0 and upper < 0:
        call.same_as("x")
        return
    if lower >= 0:
        diagonal = call.initializer("lower", np.array(-lower, np.int64))
        x = call.node("Trilu", [x, diagonal], part="above" if upper >= 0 else None, upper=1)
    if upper >= 0:
        call.node("Trilu", [x, call.initializer("upper", np.array(upper, np.int64))], upper=0)
