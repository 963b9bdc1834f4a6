"""Recurrent layers: ONNX's own with their gates in its order, and step by step what ONNX has no layer for.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15/recurrent.py, iOS17/recurrent.py and iOS18/recurrent.py.

Sequences are [steps, batch, size]. A layer that runs in reverse returns its steps in the order in which it takes them,
the last one first; a bidirectional one returns both directions' steps in the sequence's own order.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from coreml_prune_bench.runtimes.portable.constants import tensor_proto
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation

# ONNX's name, alpha and beta. Core ML's scaled_tanh has both at 1 here, which is tanh.
_ACTIVATIONS: dict[str, tuple[str, tuple[float, float] | None]] = {
    "tanh": ("Tanh", None),
    "scaled_tanh": ("Tanh", None),
    "sigmoid": ("Sigmoid", None),
    "hard_sigmoid": ("HardSigmoid", (0.2, 0.5)),
    "sigmoid_hard": ("HardSigmoid", (0.2, 0.5)),
    "relu": ("Relu", None),
    "linear": ("Affine", (1.0, 0.0)),
}

# Which of Core ML's gates stands where in ONNX's order.
_LSTM_GATES = (0, 2, 1, 3)  # input, forget, output, cell -> input, output, forget, cell
_LSTM_PEEPHOLES = (0, 2, 1)  # the same without the cell
_GRU_GATES = (2, 0, 1)  # reset, output, update -> update, reset, output
_RNN_GATES = (0,)


@operation("rnn")
def rnn(call: Call) -> None:
    bias = [_gates(call, "bias", _RNN_GATES), None]
    _run(call, "RNN", _RNN_GATES, bias, [("activation", "tanh")])


@operation("gru")
def gru(call: Call) -> None:
    """`reset_after` and a bias of the inputs' own came with iOS18, and are what PyTorch computes."""
    bias = [_gates(call, "input_bias", _GRU_GATES), _gates(call, "bias", _GRU_GATES)]
    activations = [("recurrent_activation", "sigmoid"), ("activation", "tanh")]
    _run(call, "GRU", _GRU_GATES, bias, activations, linear_before_reset=int(call.flag("reset_after")))


@operation("lstm")
def lstm(call: Call) -> None:
    if call.has("clip"):
        _clipped_lstm(call)
        return
    bias = [_gates(call, "bias", _LSTM_GATES), None]
    activations = [("recurrent_activation", "sigmoid"), ("cell_activation", "tanh"), ("activation", "tanh")]
    _run(call, "LSTM", _LSTM_GATES, bias, activations)


# --- ONNX's layers


def _run(
    call: Call,
    op_type: str,
    gates: Sequence[int],
    bias: Sequence[np.ndarray | None],
    activations: Sequence[tuple[str, str]],
    **attributes: Any,
) -> None:
    """`bias` is the inputs' and the hidden state's, either of which may be missing."""
    states = ["initial_h", "initial_c"] if op_type == "LSTM" else ["initial_h"]
    inputs = [call.tensor("x")]
    for parameter in ("weight_ih", "weight_hh"):
        weights = _gates(call, parameter, gates)
        if weights is None:
            raise call.malformed(f"parameter {parameter!r} is missing")
        inputs.append(call.initializer(parameter, weights))
    inputs += [_bias(call, bias), "", *(_state_before(call, state) for state in states)]
    peephole = _gates(call, "peephole", _LSTM_PEEPHOLES)
    if peephole is not None:
        inputs.append(call.initializer("peephole", peephole))

    functions = [_activation(call, parameter, default) for parameter, default in activations]
    functions *= len(_directions(call))
    parameters = [pair for _, pair in functions if pair is not None]
    attributes["activations"] = [name for name, _ in functions]
    if parameters:
        attributes["activation_alpha"] = [alpha for alpha, _ in parameters]
        attributes["activation_beta"] = [beta for _, beta in parameters]
    names = [call.part(part) for part in ("steps", "hidden", "cell")[: len(states) + 1]]
    hidden_size = call.fixed_shape("weight_hh")[1]
    direction = call.text("direction", "forward")
    call.nodes(op_type, inputs, names, hidden_size=hidden_size, direction=direction, **attributes)
    _results(call, names)


def _directions(call: Call) -> list[str]:
    """What the parameters' names end in, for each direction."""
    direction = call.text("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise call.malformed(f"its direction is {direction!r}")
    return ["", "_back"] if direction == "bidirectional" else [""]


def _activation(call: Call, parameter: str, default: str) -> tuple[str, tuple[float, float] | None]:
    name = call.text(parameter, default).lower()
    if name not in _ACTIVATIONS:
        raise call.unsupported(f"{parameter} is {name!r}")
    return _ACTIVATIONS[name]


def _gates(call: Call, parameter: str, order: Sequence[int]) -> np.ndarray | None:
    """[directions, gates * hidden, ...] with the gates in `order`, None where no direction has the parameter."""
    given = [f"{parameter}{suffix}" for suffix in _directions(call)]
    arrays = [call.array(name) if call.has(name) else None for name in given]
    shapes = {array.shape for array in arrays if array is not None}
    if not shapes:
        return None
    if len(shapes) > 1:
        raise call.malformed(f"the directions' {parameter!r} have the shapes {sorted(shapes)}")
    # A direction without a bias or peephole has zeros.
    filled = [np.zeros(shapes.copy().pop(), np.float32) if array is None else array for array in arrays]
    parts = [np.split(array, len(order)) for array in filled]
    return np.stack([np.concatenate([part[gate] for gate in order]) for part in parts])


def _bias(call: Call, parts: Sequence[np.ndarray | None]) -> str:
    shape = next((part.shape for part in parts if part is not None), None)
    if shape is None:
        return ""
    filled = [np.zeros(shape, np.float32) if part is None else part for part in parts]
    return call.initializer("bias", np.concatenate(filled, axis=1))


def _state_before(call: Call, parameter: str) -> str:
    """[batch, directions * hidden] as [directions, batch, hidden]."""
    name, directions = call.tensor(parameter), len(_directions(call))
    if directions == 1:
        return call.node("Unsqueeze", [name, call.sizes("first", [0])], part=f"{parameter}/before")
    hidden_size = call.fixed_shape("weight_hh")[1]
    apart = call.node("Reshape", [name, call.sizes("apart", [0, directions, hidden_size])], part=f"{parameter}/apart")
    return call.node("Transpose", [apart], part=f"{parameter}/before", perm=[1, 0, 2])


def _results(call: Call, names: Sequence[str]) -> None:
    """ONNX's results, [steps, directions, batch, hidden] and [directions, batch, hidden], as Core ML's."""
    steps, *states = names
    if len(_directions(call)) == 1:
        _results_of_one(call, steps, states)
        return
    wide = call.sizes("wide", [0, -1])
    for output, state in zip(call.outputs[1:], states, strict=True):
        apart = call.node("Transpose", [state], part=f"{state}/apart", perm=[1, 0, 2])
        call.nodes("Reshape", [apart, wide], [output])
    if call.flag("output_sequence"):
        apart = call.node("Transpose", [steps], part="steps/apart", perm=[0, 2, 1, 3])
        call.node("Reshape", [apart, call.sizes("wide_steps", [0, 0, -1])])
    else:
        call.node("Unsqueeze", [call.outputs[1], call.sizes("first", [0])])


def _results_of_one(call: Call, steps: str, states: Sequence[str]) -> None:
    for output, state in zip(call.outputs[1:], states, strict=True):
        call.nodes("Squeeze", [state, call.sizes("first", [0])], [output])
    if not call.flag("output_sequence"):
        call.node("Identity", [states[0]])
        return
    reverse = call.text("direction", "forward") == "reverse"
    in_order = call.node("Squeeze", [steps, call.sizes("second", [1])], part="steps/in_order" if reverse else None)
    if reverse:
        ends = [call.sizes("last", [-1]), call.sizes("before_first", [np.iinfo(np.int64).min])]
        call.node("Slice", [in_order, *ends, call.sizes("first", [0]), call.sizes("back", [-1])])


# --- an LSTM whose cells are clipped


def _clipped_lstm(call: Call) -> None:
    """The cells stay within [-clip, clip]. ONNX's layer clips something else: what goes into the activations."""
    directions = _directions(call)
    before = {state: _apart(call, state, directions) for state in ("initial_h", "initial_c")}
    after: list[list[str]] = []
    for suffix, hidden, cell in zip(directions, before["initial_h"], before["initial_c"], strict=True):
        after.append([call.part(f"{part}{suffix}") for part in ("hidden", "cell", "steps")])
        backwards = suffix == "_back" or call.text("direction", "forward") == "reverse"
        call.nodes(
            "Scan",
            [hidden, cell, _input_part_of_gates(call, suffix)],
            after[-1],
            body=_step(call, suffix),
            num_scan_inputs=1,
            scan_input_directions=[int(backwards)],
            scan_output_directions=[int(suffix == "_back")],
        )
    for output, position in ((call.outputs[1], 0), (call.outputs[2], 1)):
        call.nodes("Concat", [results[position] for results in after], [output], axis=-1)
    if call.flag("output_sequence"):
        call.node("Concat", [steps for _, _, steps in after], axis=-1)
    else:
        call.node("Unsqueeze", [call.outputs[1], call.sizes("first", [0])])


def _apart(call: Call, parameter: str, directions: Sequence[str]) -> list[str]:
    """[batch, directions * hidden] as [batch, hidden] for each direction."""
    names = [call.part(f"{parameter}{suffix}/before") for suffix in directions]
    call.nodes("Split", [call.tensor(parameter)], names, axis=1, num_outputs=len(names))
    return names


def _input_part_of_gates(call: Call, suffix: str) -> str:
    """What the inputs and the bias add to the gates, for all steps at once."""
    weights = call.initializer(f"weight_ih{suffix}", call.array(f"weight_ih{suffix}").T)
    product = call.node("MatMul", [call.tensor("x"), weights], part=f"product{suffix}")
    if not call.has(f"bias{suffix}"):
        return product
    return call.node("Add", [product, call.tensor(f"bias{suffix}")], part=f"biased{suffix}")


def _step(call: Call, suffix: str) -> onnx.GraphProto:
    """One step: from the hidden state, the cell and what the input adds to the gates, to the next two and the output.

    The graph has constants of its own, so that it can be evaluated by itself.
    """
    inner, constants = call.graph.child(), []

    def part(name: str) -> str:
        return call.part(f"step{suffix}/{name}")

    def constant(name: str, array: np.ndarray) -> str:
        constants.append(tensor_proto(part(name), array))
        return part(name)

    def node(op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        return inner.node(op_type, inputs, part(name), **attributes)

    def activated(parameter: str, default: str, value: str) -> str:
        op_type, parameters = _activation(call, parameter, default)
        alpha_and_beta = dict(zip(("alpha", "beta"), parameters or (), strict=False))
        return value if op_type == "Affine" else node(op_type, [value], f"{value}/activated", **alpha_and_beta)

    def gate(value: str, seen: str, weights: np.ndarray | None) -> str:
        """A gate, which sees the cell through its peephole weights."""
        if weights is not None:
            peephole = node("Mul", [seen, constant(f"{value}/weights", weights)], f"{value}/peephole")
            value = node("Add", [value, peephole], f"{value}/sum")
        return activated("recurrent_activation", "sigmoid", value)

    hidden, cell, inputs = part("hidden"), part("cell"), part("inputs")
    recurrent = constant("weights", call.array(f"weight_hh{suffix}").T)
    gates = node("Add", [inputs, node("MatMul", [hidden, recurrent], "product")], "gates")
    input_gate, forget_gate, output_gate, new = (part(name) for name in ("input", "forget", "output", "new"))
    inner.node("Split", [gates], [input_gate, forget_gate, output_gate, new], axis=-1, num_outputs=4)
    has_peephole = call.has(f"peephole{suffix}")
    peepholes = np.split(call.array(f"peephole{suffix}"), 3) if has_peephole else [None, None, None]

    kept = node("Mul", [gate(forget_gate, cell, peepholes[1]), cell], "kept")
    entering = node(
        "Mul", [gate(input_gate, cell, peepholes[0]), activated("cell_activation", "tanh", new)], "entering"
    )
    clip = abs(call.real("clip"))
    bounds = [constant("least", np.array(-clip, np.float32)), constant("most", np.array(clip, np.float32))]
    next_cell = node("Clip", [node("Add", [kept, entering], "sum"), *bounds], "next_cell")
    shown = gate(output_gate, next_cell, peepholes[2])
    next_hidden = node("Mul", [shown, activated("activation", "tanh", next_cell)], "next_hidden")
    step = node("Identity", [next_hidden], "step")

    taken, given = [[_float(n) for n in names] for names in ((hidden, cell, inputs), (next_hidden, next_cell, step))]
    return helper.make_graph(inner.nodes, part("body"), taken, given, constants)


def _float(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
