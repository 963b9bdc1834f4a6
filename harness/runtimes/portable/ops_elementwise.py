"""Elementwise arithmetic, comparison and casts.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15/elementwise_binary.py and elementwise_unary.py.
"""

from harness.runtimes.portable.batch import broadcast, only
from harness.runtimes.portable.graph import FLOATS, Call, onnx_type
from harness.runtimes.portable.registry import operation

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
    if not call.is_float("x"):
        raise call.unsupported("it divides integers")
    call.node("Div", [call.tensor("x"), call.tensor("y")])


@operation("mod", batch=broadcast)
def mod(call: Call) -> None:
    _modulo(call, part=None)


@operation("floor_div", batch=broadcast)
def floor_div(call: Call) -> None:
    x, y = call.tensor("x"), call.tensor("y")
    if call.is_float("x"):
        call.node("Floor", [call.node("Div", [x, y], part="quotient")])
        return
    # ONNX rounds an integer quotient towards zero; without the remainder there is nothing to round.
    multiple = call.node("Sub", [x, _modulo(call, part="remainder")], part="multiple")
    call.node("Div", [multiple, y])


def _modulo(call: Call, *, part: str | None) -> str:
    """The remainder with the sign of y, as Python's. ONNX has that for integers; for floats it has C's fmod."""
    x, y = call.tensor("x"), call.tensor("y")
    if not call.is_float("x"):
        return call.node("Mod", [x, y], part=part)
    remainder = call.node("Mod", [x, y], part="fmod", fmod=1)
    zero = call.number("zero", 0.0)
    signs = [call.node("Sign", [remainder], part="sign"), call.node("Sign", [y], part="sign_y")]
    negative = call.node("Less", [call.node("Mul", signs, part="signs"), zero], part="negative")
    shifted = call.node("Add", [remainder, y], part="shifted")
    return call.node("Where", [negative, shifted, remainder], part=part)


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
    if not call.is_float("x"):
        raise call.unsupported("its input is an integer")
    call.node("Pow", [call.number("two", 2.0), call.tensor("x")])


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
    epsilon = call.number("epsilon", call.real("epsilon", default))
    return call.node("Add", [call.tensor("x"), epsilon], part="shifted")


@operation("cast", batch=ROWWISE)
def cast(call: Call) -> None:
    source, target = call.type("x").dtype, call.output_type.dtype
    if source == target or (source in FLOATS and target in FLOATS):
        call.same_as("x")  # all floats are Float32 here
    else:
        call.node("Cast", [call.tensor("x")], to=onnx_type(target))


@operation("identity", batch=ROWWISE)
def identity(call: Call) -> None:
    call.same_as("x")
