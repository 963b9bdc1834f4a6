"""State: values that live from one prediction to the next. They are inputs and outputs of the ONNX model.

Definition: coremltools/converters/mil/mil/ops/defs/iOS18/states.py and coreml_dialect.
"""

from harness.runtimes.portable.graph import Call
from harness.runtimes.portable.registry import operation


@operation("read_state")
def read_state(call: Call) -> None:
    # The value as it is now: a later update gives the state a new value and leaves this one alone.
    call.graph.alias(call.output, call.graph.states[_state(call, "input")])


@operation("coreml_update_state", "write_state")
def update_state(call: Call) -> None:
    state, value = _state(call, "state" if call.has("state") else "input"), call.tensor("value")
    call.graph.states[state] = value
    if call.operation.outputs:
        call.same_as("value")


def _state(call: Call, parameter: str) -> str:
    if call.graph.nested:
        raise call.unsupported("it stands inside a branch or a loop")
    name = call.reference(parameter)
    if name not in call.graph.states:
        raise call.malformed(f"{name!r} is not a state")
    return name
