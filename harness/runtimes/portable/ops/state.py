"""State: values that live from one prediction to the next. They are inputs and outputs of the ONNX model.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS18/states.py and coreml_dialect/ops.py. What coremltools calls
coreml_update_state stands in a package as write_state, followed by a read_state where its result is used.
"""

from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation


@operation("read_state")
def read_state(call: Call) -> None:
    # The value as it is now: a later update gives the state a new value and leaves this one alone.
    call.graph.alias(call.output, call.graph.states[_state(call, "input")])


@operation("write_state")
def write_state(call: Call) -> None:
    _write(call, "input", "data")


@operation("coreml_update_state")
def update_state(call: Call) -> None:
    _write(call, "state", "value")
    call.same_as("value")


def _write(call: Call, state: str, value: str) -> None:
    name = _state(call, state)
    expected, got = call.graph.types[name].shape, call.shape(value)
    if len(expected) != len(got) or any(
        None not in sizes and len(set(sizes)) > 1 for sizes in zip(expected, got, strict=True)
    ):
        raise call.malformed(f"the state {name!r} has shape {list(expected)}, not {list(got)}")
    call.graph.states[name] = call.tensor(value)


def _state(call: Call, parameter: str) -> str:
    name = call.reference(parameter)
    if name not in call.graph.states:
        raise call.malformed(f"{name!r} is not a state")
    return name
