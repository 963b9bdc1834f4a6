"""Activations. Definition: coremltools/converters/mil/mil/ops/defs/iOS15/activation.py (iOS17 only widens types)."""

import numpy as np

from coreml_prune_bench.runtimes.portable.batch import only, spares_leading
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation

ROWWISE = only("x")

_SAME_IN_ONNX = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
}


@operation(*_SAME_IN_ONNX, batch=ROWWISE)
def plain(call: Call) -> None:
    call.node(_SAME_IN_ONNX[call.operation.type], [call.tensor("x")])


@operation("relu6", batch=ROWWISE)
def relu6(call: Call) -> None:
    call.node("Clip", [call.tensor("x"), call.number("low", 0.0), call.number("high", 6.0)])


@operation("leaky_relu", "elu", batch=ROWWISE)
def with_alpha(call: Call) -> None:
    names = {"leaky_relu": "LeakyRelu", "elu": "Elu"}
    call.node(names[call.operation.type], [call.tensor("x")], alpha=call.real("alpha"))


@operation("sigmoid_hard", batch=ROWWISE)
def sigmoid_hard(call: Call) -> None:
    call.node("HardSigmoid", [call.tensor("x")], alpha=call.real("alpha"), beta=call.real("beta"))


@operation("thresholded_relu", batch=ROWWISE)
def thresholded_relu(call: Call) -> None:
    # MIL keeps x >= alpha, ONNX x > alpha: among Float32 numbers that is x > the number just below alpha.
    below = np.nextafter(np.float32(call.real("alpha")), np.float32(-np.inf))
    call.node("ThresholdedRelu", [call.tensor("x")], alpha=float(below))


@operation("clamped_relu", batch=ROWWISE)
def clamped_relu(call: Call) -> None:
    leaky = call.node("LeakyRelu", [call.tensor("x")], part="leaky", alpha=call.real("alpha"))
    call.node("Min", [leaky, call.number("beta", call.real("beta"))])


@operation("linear_activation", batch=ROWWISE)
def linear_activation(call: Call) -> None:
    scaled = call.node("Mul", [call.tensor("x"), call.number("alpha", call.real("alpha"))], part="scaled")
    call.node("Add", [scaled, call.number("beta", call.real("beta"))])


@operation("scaled_tanh", batch=ROWWISE)
def scaled_tanh(call: Call) -> None:
    scaled = call.node("Mul", [call.tensor("x"), call.number("beta", call.real("beta"))], part="scaled")
    tanh = call.node("Tanh", [scaled], part="tanh")
    call.node("Mul", [tanh, call.number("alpha", call.real("alpha"))])


@operation("prelu", batch=only("x", rank=3))
def prelu(call: Call) -> None:
    call.node("PRelu", [call.tensor("x"), _per_channel(call, "alpha")])


@operation("softplus_parametric", batch=only("x", rank=3))
def softplus_parametric(call: Call) -> None:
    scaled = call.node("Mul", [call.tensor("x"), _per_channel(call, "beta")], part="scaled")
    call.node("Mul", [call.node("Softplus", [scaled], part="softplus"), _per_channel(call, "alpha")])


def _per_channel(call: Call, parameter: str) -> str:
    """[C] as [C, 1, 1], which lines up with x."""
    return call.initializer(parameter, call.array(parameter).reshape(-1, *[1] * (call.rank("x") - 2)))


@operation("silu", batch=ROWWISE)
def silu(call: Call) -> None:
    x = call.tensor("x")
    call.node("Mul", [x, call.node("Sigmoid", [x], part="sigmoid")])


@operation("gelu", batch=ROWWISE)
def gelu(call: Call) -> None:
    x = call.tensor("x")
    mode = call.text("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        scaled = call.node("Mul", [x, call.number("scale", 1.702)], part="scaled")
        call.node("Mul", [x, call.node("Sigmoid", [scaled], part="sigmoid")])
    elif mode in ("EXACT", "TANH_APPROXIMATION"):
        call.node("Gelu", [x], approximate="none" if mode == "EXACT" else "tanh")
    else:
        raise call.malformed(f"mode is {mode!r}")


@operation("softmax", batch=spares_leading("axis", default=[-1]))
def softmax(call: Call) -> None:
    call.node("Softmax", [call.tensor("x")], axis=call.integer("axis", -1))
