"""Elementwise operations that ML programs do not have, or have with another meaning."""

from onnx import TensorProto

from coreml_prune_bench.runtimes.portable.batch import only
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.ops_coreai.apart import along, broadcasting
from coreml_prune_bench.runtimes.portable.registry import operation

ROWWISE = only("x")


@operation("coreai.acosh", "coreai.asinh", batch=ROWWISE)
def inverse_hyperbolic(call: Call) -> None:
    call.node(call.operation.type.removeprefix("coreai.").capitalize(), [call.tensor("x")])


@operation("coreai.gelu", batch=ROWWISE)
def gelu(call: Call) -> None:
    x, approximate = call.tensor("x"), call.text("approximate", "none")
    if approximate == "sigmoid":
        scaled = call.node("Mul", [x, call.number("scale", 1.702)], part="scaled")
        call.node("Mul", [x, call.node("Sigmoid", [scaled], part="sigmoid")])
    elif approximate in ("none", "tanh"):
        call.node("Gelu", [x], approximate=approximate)
    else:
        raise call.malformed(f"approximate is {approximate!r}")


@broadcasting("coreai.modulo")
def modulo(call: Call) -> None:
    """C's remainder, which has the sign of x."""
    if call.is_float("x"):
        call.node("Mod", [call.tensor("x"), call.tensor("y")], fmod=1)
        return
    # In Float64, which holds every Int32 apart: ONNX Runtime's integers end the process where y is zero.
    wide = [call.node("Cast", [call.tensor(p)], part=f"{p}/wide", to=TensorProto.DOUBLE) for p in ("x", "y")]
    remainder = call.node("Mod", wide, part="remainder", fmod=1)
    call.node("Cast", [remainder], to=TensorProto.INT32)


_BITWISE = {"and": "BitwiseAnd", "or": "BitwiseOr", "xor": "BitwiseXor"}


@broadcasting(*(f"coreai.bitwise_{name}" for name in _BITWISE))
def bitwise(call: Call) -> None:
    name = call.operation.type.removeprefix("coreai.bitwise_")
    logical = {"and": "And", "or": "Or", "xor": "Xor"}
    kinds = logical if call.type("x").dtype == "bool" else _BITWISE
    call.node(kinds[name], [call.tensor("x"), call.tensor("y")])


@along("axes", "coreai.any", "coreai.all")
def any_or_all(call: Call) -> None:
    """Reduced dimensions are kept, of size 1."""
    numbers = call.node("Cast", [call.tensor("x")], part="numbers", to=TensorProto.INT32)
    kind = "ReduceMax" if call.operation.type == "coreai.any" else "ReduceMin"
    axes = [axis % call.rank("x") for axis in call.ints("axes", [])]
    reduced = call.node(kind, [numbers, call.sizes("axes", axes)], part="reduced", keepdims=1) if axes else numbers
    call.node("Cast", [reduced], to=TensorProto.BOOL)


def _quantization_keeps_batch(call: Call) -> bool:
    """One of each for all rows, or one for each position along another axis than theirs."""
    along_rows = call.integer("axis", 0) % call.rank("x") == 0 and call.array("scale").size > 1
    return not along_rows and only("x")(call)


@operation("coreai.dequantize", batch=_quantization_keeps_batch)
def dequantize(call: Call) -> None:
    """(x - offset1) * scale + offset2, with one of each or one for each position along `axis`."""
    x = call.node("Cast", [call.tensor("x")], part="numbers", to=TensorProto.FLOAT)
    shifted = call.node("Sub", [x, _along_axis(call, "offset1")], part="shifted")
    scaled = call.node("Mul", [shifted, _along_axis(call, "scale")], part="scaled")
    call.node("Add", [scaled, _along_axis(call, "offset2")])


_RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15), "int16": (-32768, 32767)}


@operation("coreai.quantize", batch=_quantization_keeps_batch)
def quantize(call: Call) -> None:
    """round((x - offset2) / scale) + offset1, as near as the result's type allows."""
    dtype = call.output_type.dtype
    if dtype not in _RANGES:
        raise call.unsupported(f"it quantizes to {dtype}")
    shifted = call.node("Sub", [call.tensor("x"), _along_axis(call, "offset2")], part="shifted")
    steps = call.node("Round", [call.node("Div", [shifted, _along_axis(call, "scale")], part="steps")], part="whole")
    moved = call.node("Add", [steps, _along_axis(call, "offset1")], part="moved")
    low, high = (call.number(name, value) for name, value in zip(("low", "high"), _RANGES[dtype], strict=True))
    call.node("Cast", [call.node("Clip", [moved, low, high], part="clipped")], to=TensorProto.INT32)


def _along_axis(call: Call, parameter: str) -> str:
    values = call.array(parameter).astype("float32")
    rank, axis = call.rank("x"), call.integer("axis", 0)
    shape = [-1 if position == axis % rank else 1 for position in range(rank)] if values.size > 1 else []
    return call.initializer(parameter, values.reshape(shape))
