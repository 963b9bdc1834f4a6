"""What Core AI's regions compute: loops, and reductions that they define."""

from onnx import TensorProto

from coreml_prune_bench.mlprogram.program import Block, Operation, renamed
from coreml_prune_bench.mlprogram.values import NamedType
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.ops.control_flow import inline
from coreml_prune_bench.runtimes.portable.ops_coreai.apart import along
from coreml_prune_bench.runtimes.portable.registry import apply, keep_samples_apart, operation


@operation("coreai.while")
def while_(call: Call) -> None:
    """While the first region's flag is set, the second one makes new values of the others that the first one gives.

    An ML program's loop hands the same values to its condition and to its body: that body is both regions, the first
    one's values once more behind it.
    """
    keep_samples_apart(call)
    before, after = call.blocks
    condition, *forwarded = before.results
    start = call.operation.inputs.get("values", ())
    if len(start) != len(before.inputs) or len(after.inputs) != len(forwarded):
        raise call.malformed("its regions do not take what it gives them")
    values = dict(zip((value.name for value in after.inputs), forwarded, strict=True))
    body = Block(
        before.inputs,
        (*before.operations, *(renamed(inner, values) for inner in after.operations)),
        tuple(values.get(name, name) for name in after.results),
    )
    ended = [NamedType(call.part(f"value{i}"), value.type) for i, value in enumerate(before.inputs)]
    loop = Operation(
        "while_loop",
        call.operation.name,
        {"loop_vars": start},
        {},
        tuple(ended),
        (Block(before.inputs, before.operations, (condition,)), body),
    )
    apply(call.graph, loop)
    for output, name in zip(call.outputs, inline(call.graph, before, [value.name for value in ended])[1:], strict=True):
        call.graph.types[output] = call.graph.type(name)
        call.graph.alias(output, name)


_REDUCTIONS = {
    "add": ("ReduceSum", "Add"),
    "mul": ("ReduceProd", "Mul"),
    "maximum": ("ReduceMax", "Max"),
    "minimum": ("ReduceMin", "Min"),
    "or": ("ReduceMax", "Max"),
    "and": ("ReduceMin", "Min"),
}
"""By the one operation of a region: how ONNX reduces with it, and how the initial value comes in. Of flags, or is the
largest one and and the least."""


@along("axes", "coreai.reduce")
def reduce(call: Call) -> None:
    """Reduced dimensions are kept, of size 1."""
    kind = _only_operation(call)[0]
    if kind not in _REDUCTIONS:
        raise call.unsupported(f"its region reduces with {kind!r}")
    op_type, join = _REDUCTIONS[kind]
    axes = [axis % call.rank("x") for axis in call.ints("axes", [])]
    flags = call.type("x").dtype == "bool"
    x, initial = (_number(call, parameter, flags) for parameter in ("x", "initial"))
    reduced = call.node(op_type, [x, call.sizes("axes", axes)], part="reduced", keepdims=1) if axes else x
    joined = call.node(join, [reduced, initial], part="joined" if flags else None)
    if flags:
        call.node("Cast", [joined], to=TensorProto.BOOL)


@along("axis", "coreai.reduce_index")
def reduce_index(call: Call) -> None:
    """The position of the first element that is better than all before it and than the initial value."""
    kind, given = _only_operation(call)
    best, candidate = (value.name for value in call.blocks[0].inputs)
    if kind != "greater" or set(given) != {best, candidate}:
        raise call.unsupported(f"its region compares with {kind!r}")
    largest = given == [candidate, best]
    axis = call.integer("axis", -1) % call.rank("x")
    x = call.tensor("x")
    found = call.node("ArgMax" if largest else "ArgMin", [x], part="int64", axis=axis, keepdims=1)
    index = call.node("Cast", [found], part="index", to=TensorProto.INT32)
    extreme = call.node(
        "ReduceMax" if largest else "ReduceMin", [x, call.sizes("axes", [axis])], part="extreme", keepdims=1
    )
    initial = call.tensor("initial")
    better = call.node("Greater", [extreme, initial] if largest else [initial, extreme], part="better")
    call.node("Where", [better, index, call.tensor("initial_index")])


def _only_operation(call: Call) -> tuple[str, list[str]]:
    """The short name of the one operation of the region, and the names of what it takes."""
    (region,) = call.blocks
    if len(region.operations) != 1 or [o.name for o in region.operations[0].outputs] != list(region.results):
        raise call.unsupported("its region has several operations")
    (only,) = region.operations
    return only.type.removeprefix("coreai."), only.references()


def _number(call: Call, parameter: str, flags: bool) -> str:
    if not flags:
        return call.tensor(parameter)
    return call.node("Cast", [call.tensor(parameter)], part=f"{parameter}/number", to=TensorProto.INT32)
