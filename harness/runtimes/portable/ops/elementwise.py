"""Elementwise arithmetic, comparison and casts.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15/elementwise_binary.py and elementwise_unary.py, and
iOS17/elementwise_unary.py (more types to cast to, epsilons of another type).

Quotients of integers are computed in Float64, which holds every Int32 quotient apart from its neighbours: ONNX Runtime
raises an error where an integer is divided by zero, and the process ends where the quotient overflows.
"""

import numpy as np
from onnx import TensorProto

from coreml_prune_bench.runtimes.portable.batch import broadcast, only
from coreml_prune_bench.runtimes.portable.graph import (
    FLOATS,
    INTEGERS,
    Call,
    onnx_type,
)
from coreml_prune_bench.runtimes.portable.registry import operation

ROWWISE = only("x")

_UNARY = {
    "abs": "Abs",
    "acos": "Acos",
    "asin": "Asin",
    "atan": "Atan",
    "atanh": "Atanh",
    "ceil": "Ceil",
    "cos": "Cos",
    "cosh": "Cosh",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "logical_not": "Not",
    "round": "Round",  # both round halves to even
    "sign": "Sign",
    "sin": "Sin",
    "sinh": "Sinh",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
}

_BINARY = {
    "add": "Add",
    "equal": "Equal",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "logical_and": "And",
    "logical_or": "Or",
    "logical_xor": "Xor",
    "maximum": "Max",
    "minimum": "Min",
    "mul": "Mul",
    "pow": "Pow",
    "sub": "Sub",
}


@operation(*_UNARY, batch=ROWWISE)
def unary(call: Call) -> None:
    call.node(_UNARY[call.operation.type], [call.tensor("x")])


@operation(*_BINARY, batch=broadcast)
def binary(call: Call) -> None:
    call.node(_BINARY[call.operation.type], [call.tensor("x"), call.tensor("y")])


@operation("not_equal", batch=broadcast)
def not_equal(call: Call) -> None:
    call.node("Not", [call.node("Equal", [call.tensor("x"), call.tensor("y")], part="equal")])


@operation("real_div", batch=broadcast)
def real_div(call: Call) -> None:
    if call.is_float("x"):
        call.node("Div", [call.tensor("x"), call.tensor("y")])
    else:
        # The result is declared an integer: what follows the point is cut off, as `cast` does.
        call.node("Cast", [_float64_quotient(call)], to=TensorProto.INT32)


@operation("floor_div", batch=broadcast)
def floor_div(call: Call) -> None:
    if call.is_float("x"):
        _float_floor_div(call)
    else:
        _integer_floor_div(call, part=None)


@operation("mod", batch=broadcast)
def mod(call: Call) -> None:
    """The remainder with the sign of y, as Python's."""
    x, y = call.tensor("x"), call.tensor("y")
    if call.is_float("x"):
        remainder, negative = _c_remainder(call)
        call.node("Where", [negative, call.node("Add", [remainder, y], part="shifted"), remainder])
    else:
        multiple = call.node("Mul", [_integer_floor_div(call, part="quotient"), y], part="multiple")
        call.node("Sub", [x, multiple])


def _float64_quotient(call: Call) -> str:
    wide = [call.node("Cast", [call.tensor(p)], part=f"{p}/wide", to=TensorProto.DOUBLE) for p in ("x", "y")]
    return call.node("Div", wide, part="wide_quotient")


def _integer_floor_div(call: Call, *, part: str | None) -> str:
    floor = call.node("Floor", [_float64_quotient(call)], part="wide_floor")
    return call.node("Cast", [floor], part=part, to=TensorProto.INT32)


def _float_floor_div(call: Call) -> None:
    """The floor of the exact quotient, as Python's: x / y may round up to the next whole number."""
    x, y = call.tensor("x"), call.tensor("y")
    remainder, negative = _c_remainder(call)
    towards_zero = call.node(
        "Round",
        [call.node("Div", [call.node("Sub", [x, remainder], part="multiple"), y], part="towards_zero")],
        part="rounded",
    )
    step = call.node("Cast", [negative], part="step", to=TensorProto.FLOAT)
    if call.is_constant("y") and call.array("y").all():
        call.node("Sub", [towards_zero, step])
        return
    floor = call.node("Sub", [towards_zero, step], part="floor")
    by_zero = call.node("Equal", [y, call.number("zero", 0.0)], part="by_zero")
    call.node("Where", [by_zero, call.node("Div", [x, y], part="infinite"), floor])


def _c_remainder(call: Call) -> tuple[str, str]:
    """C's fmod, which has the sign of x, and where that is not the sign of y."""
    y = call.tensor("y")
    remainder = call.node("Mod", [call.tensor("x"), y], part="fmod", fmod=1)
    signs = [call.node("Sign", [remainder], part="sign"), call.node("Sign", [y], part="sign_y")]
    product = call.node("Mul", signs, part="signs")
    return remainder, call.node("Less", [product, call.number("zero", 0.0)], part="negative")


@operation("clip", batch=ROWWISE)
def clip(call: Call) -> None:
    call.node("Clip", [call.tensor("x"), call.tensor("alpha"), call.tensor("beta")])


@operation("threshold", batch=ROWWISE)
def threshold(call: Call) -> None:
    call.node("Max", [call.tensor("x"), call.tensor("alpha")])


@operation("square", batch=ROWWISE)
def square(call: Call) -> None:
    x = call.tensor("x")
    call.node("Mul", [x, x])


@operation("exp2", batch=ROWWISE)
def exp2(call: Call) -> None:
    two = np.array(2, np.float32 if call.is_float("x") else np.int32)
    call.node("Pow", [call.initializer("two", two), call.tensor("x")])


@operation("inverse", batch=ROWWISE)
def inverse(call: Call) -> None:
    call.node("Reciprocal", [_plus_epsilon(call, 1e-4)])


@operation("log", batch=ROWWISE)
def log(call: Call) -> None:
    call.node("Log", [_plus_epsilon(call, 1e-45)])


@operation("rsqrt", batch=ROWWISE)
def rsqrt(call: Call) -> None:
    call.node("Reciprocal", [call.node("Sqrt", [_plus_epsilon(call, 1e-12)], part="sqrt")])


def _plus_epsilon(call: Call, default: float) -> str:
    """x + epsilon. The default has the type of x: among Float16 numbers, most of these are zero."""
    rounded = float(np.float16(default)) if call.type("x").dtype == "fp16" else default
    epsilon = call.real("epsilon", rounded)
    if epsilon == 0:
        return call.tensor("x")
    return call.node("Add", [call.tensor("x"), call.number("epsilon", epsilon)], part="shifted")


_NARROW = {
    "int8": (np.int8, TensorProto.INT8),
    "int16": (np.int16, TensorProto.INT16),
    "uint8": (np.uint8, TensorProto.UINT8),
    "uint16": (np.uint16, TensorProto.UINT16),
}


@operation("cast", batch=ROWWISE)
def cast(call: Call) -> None:
    source, target = call.type("x").dtype, call.output_type.dtype
    if source == "fp32" and target == "fp16" and call.graph.precision == "float16":
        call.node("Identity", [call.tensor("x")])  # a value of its own: it is rounded, x is not
    elif (source in FLOATS and target in FLOATS) or _holds(target, source):
        call.same_as("x")  # all floats are Float32 here, all integers Int32
    elif target not in _NARROW or source == "bool":
        call.node("Cast", [call.tensor("x")], to=onnx_type(target))
    else:
        # Towards zero, then the lowest bits: what C does, and NumPy.
        x = call.tensor("x")
        whole = x if source in INTEGERS else call.node("Cast", [x], part="whole", to=TensorProto.INT32)
        narrow = call.node("Cast", [whole], part="narrow", to=_NARROW[target][1])
        call.node("Cast", [narrow], to=TensorProto.INT32)


def _holds(target: str, source: str) -> bool:
    """Whether every number of the one type is one of the other."""
    if source == target or (source in _NARROW and target == "int32"):
        return True
    return source in _NARROW and target in _NARROW and np.can_cast(_NARROW[source][0], _NARROW[target][0])


@operation("identity", batch=ROWWISE)
def identity(call: Call) -> None:
    call.same_as("x")
