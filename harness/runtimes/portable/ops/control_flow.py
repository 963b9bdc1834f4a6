"""Branches and loops, and the lists that loops fill.

Definition: coremltools/converters/mil/mil/ops/defs/iOS15/control_flow.py.

A block becomes a graph inside an If or a Loop. Its values are renamed while it is translated: blocks may name theirs
alike, and a loop's are translated anew where a size changes from round to round.

A list is a tensor [length, *element] that a write returns anew, longer where it has to be.
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from coreml_prune_bench.mlprogram.program import Block, renamed
from coreml_prune_bench.mlprogram.values import NamedType, Reference, Shape, TensorType
from coreml_prune_bench.runtimes.portable.graph import Call, Graph, onnx_type
from coreml_prune_bench.runtimes.portable.registry import apply, keep_samples_apart, operation

_WRITES_OF_STATE = {"write_state": "input", "coreml_update_state": "state"}


# --- blocks


def inline(graph: Graph, block: Block, inputs: Sequence[str] = ()) -> list[str]:
    """Translate a block into `graph`, with the values `inputs` for its own. Returns what its results are called."""
    values = dict(zip((value.name for value in block.inputs), inputs, strict=True))
    number = next(graph.blocks)  # not the name of what the block is in: names would grow with every level
    for name in block.defined():
        values.setdefault(name, f"/{number}/{name}")
    for inner in block.operations:
        apply(graph, renamed(inner, values))
    return [values.get(name, name) for name in block.results]


def _child(graph: Graph) -> Graph:
    inner = graph.child()
    inner.states = ChainMap({}, graph.states)
    return inner


def _written_states(call: Call, blocks: Sequence[Block]) -> list[str]:
    """The states that the blocks may write to, in a fixed order. Writing is what a block does besides its results."""
    return [state for state in dict.fromkeys(_states_in(blocks)) if state in call.graph.states]


def _states_in(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        for inner in block.operations:
            yield from _states_in(inner.blocks)
            given = inner.inputs.get(_WRITES_OF_STATE.get(inner.type, ""), ())
            yield from (argument.name for argument in given if isinstance(argument, Reference))


def _body(
    call: Call, graph: Graph, part: str, inputs: Sequence[onnx.ValueInfoProto], results: Sequence[tuple[str, str]]
) -> onnx.GraphProto:
    """The finished graph of a block. `results` are names that it can see, and their element types."""
    outputs = []
    for position, (name, dtype) in enumerate(results):
        # A result may be a value from outside, a constant or an input: none of these can be an output of a graph.
        copy = graph.node("Identity", [name], call.part(f"{part}/result{position}"))
        outputs.append(_value(copy, dtype))
    return helper.make_graph(graph.nodes, call.part(part), inputs, outputs)


def _value(name: str, dtype: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx_type(dtype), None)


def _common(a: TensorType, b: TensorType) -> TensorType:
    """`a`, with every size left open in which `b` differs."""
    if not (a.rank_known and b.rank_known) or len(a.shape) != len(b.shape):
        return replace(a, shape=(), rank_known=False)
    return replace(a, shape=tuple(m if m == n else None for m, n in zip(a.shape, b.shape, strict=True)))


# --- branches


@operation("cond")
def cond(call: Call) -> None:
    keep_samples_apart(call)
    if call.is_constant("pred"):
        taken = call.blocks[0] if call.flag("pred") else call.blocks[1]
        for output, name in zip(call.outputs, inline(call.graph, taken), strict=True):
            _rename(call, output, name)
        return
    states = _written_states(call, call.blocks)
    bodies, types = [], []
    for part, block in zip(("then", "else"), call.blocks, strict=True):
        inner = _child(call.graph)
        names = inline(inner, block)
        types.append([inner.type(name) for name in names])
        results = [(inner.tensor(name), inner.type(name).dtype) for name in names]
        results += [(inner.states[state], inner.types[state].dtype) for state in states]
        bodies.append(_body(call, inner, part, [], results))
    after = [call.part(f"state/{state}") for state in states]
    call.nodes("If", [call.tensor("pred")], [*call.outputs, *after], then_branch=bodies[0], else_branch=bodies[1])
    call.graph.states.update(zip(states, after, strict=True))
    for output, then, otherwise in zip(call.outputs, *types, strict=True):
        call.graph.types[output] = _common(then, otherwise)


def _rename(call: Call, output: str, name: str) -> None:
    call.graph.types[output] = call.graph.type(name)
    call.graph.alias(output, name)


# --- loops


@operation("while_loop")
def while_loop(call: Call) -> None:
    """A round is an If: the condition, and where it holds the body. So each block is written once, however deep."""
    keep_samples_apart(call)
    start, body = _loop_values(call), call.blocks[1]
    # What a round hands on as it came is a value from outside: a constant then stays one.
    carried = [i for i, value in enumerate(body.inputs) if body.results[i] != value.name]
    states = _written_states(call, call.blocks)
    if not carried and not states:
        raise call.unsupported("no round of the loop changes anything")

    types = {i: _type_in_loop(body.inputs[i].type, call.graph.type(start[i])) for i in carried}
    known = call.graph.loop_types.get(id(body.inputs), types)  # from when the loop around this one was written before
    types = {i: _common(types[i], known[i]) for i in carried}
    for attempt in range(sum(len(type_.shape) + 1 for type_ in types.values()) + 1):
        written = _round(call, f"round{attempt}", start, types, states)
        if written.types == types:
            break
        types = written.types  # a size that a round changes is open: translate it anew, knowing so
    call.graph.loop_types[id(body.inputs)] = types

    before = [call.graph.tensor(start[i]) for i in carried] + [call.graph.states[state] for state in states]
    after = [_state_name(call, "after", state) for state in states]
    outputs = call.outputs
    always = call.initializer("always", np.array(True))
    call.nodes("Loop", ["", always, *before], [*(outputs[i] for i in carried), *after], body=written.graph)
    call.graph.states.update(zip(states, after, strict=True))
    for i, output in enumerate(outputs):
        if i in types:
            call.graph.types[output] = types[i]
        else:
            _rename(call, output, start[i])


def _loop_values(call: Call) -> list[str]:
    """The names of the values that the loop starts with."""
    names = []
    for position, argument in enumerate(call.operation.inputs.get("loop_vars", ())):
        if isinstance(argument, Reference):
            names.append(argument.name)
            continue
        names.append(call.part(f"start{position}"))
        call.graph.declare(NamedType(names[-1], argument.type))
        call.graph.define(names[-1], argument)
    return names


def _type_in_loop(declared: TensorType, start: TensorType) -> TensorType:
    return declared if declared.fixed and declared.kind == "tensor" else start


@dataclass(frozen=True)
class _Round:
    """A round as a graph, and the loop values' types (by position) once it may have run."""

    graph: onnx.GraphProto
    types: dict[int, TensorType]


def _round(
    call: Call, part: str, start: Sequence[str], types: Mapping[int, TensorType], states: Sequence[str]
) -> _Round:
    """One round for loop values of `types`."""
    condition, body = call.blocks
    outer = _child(call.graph)
    names = [call.part(f"{part}/{body.inputs[i].name}") if i in types else name for i, name in enumerate(start)]
    for i, type_ in types.items():
        outer.declare(NamedType(names[i], type_))
    for state in states:
        outer.states[state] = _state_name(call, part, state)
        outer.declare(NamedType(outer.states[state], replace(outer.types[state], kind="tensor")))
    given = [(names[i], type_.dtype) for i, type_ in types.items()]
    given += [(outer.states[state], outer.types[state].dtype) for state in states]
    keep = _flag(call, outer, inline(outer, condition, names)[0], f"{part}/while")

    inner = _child(outer)
    results = inline(inner, body, names)
    done = [(inner.tensor(results[i]), type_.dtype) for i, type_ in types.items()]
    done += [(inner.states[state], inner.types[state].dtype) for state in states]
    ended = [(outer.tensor(names[i]), type_.dtype) for i, type_ in types.items()]
    ended += [(outer.states[state], outer.types[state].dtype) for state in states]
    branches = {
        "then_branch": _body(call, inner, f"{part}/do", [], done),
        "else_branch": _body(call, _child(outer), f"{part}/end", [], ended),
    }
    changed = [call.part(f"{part}/value{position}") for position in range(len(given))]
    outer.node("If", [keep], changed, **branches)

    counters = (("iteration", onnx.TensorProto.INT64), ("keep", onnx.TensorProto.BOOL))
    inputs = [helper.make_tensor_value_info(call.part(f"{part}/{name}"), type_, []) for name, type_ in counters]
    inputs += [_value(name, dtype) for name, dtype in given]
    outputs = [(keep, "bool"), *((name, dtype) for name, (_, dtype) in zip(changed, given, strict=True))]
    graph = _body(call, outer, part, inputs, outputs)
    return _Round(graph, {i: _common(type_, inner.type(results[i])) for i, type_ in types.items()})


def _state_name(call: Call, part: str, state: str) -> str:
    return call.part(f"{part}/state/{state}")


def _flag(call: Call, graph: Graph, name: str, part: str) -> str:
    """A condition as ONNX wants it: a scalar. MIL takes a vector of one too."""
    if graph.type(name).rank_known and graph.type(name).shape == ():
        return graph.tensor(name)
    scalar = call.sizes(f"{part}/scalar", [])
    return graph.node("Reshape", [graph.tensor(name), scalar], call.part(f"{part}/flag"))


# --- lists


@operation("make_list")
def make_list(call: Call) -> None:
    """Zeros. A size of the elements that is not known yet is 0: the first write makes it what it is."""
    type_ = call.output_type
    if not type_.rank_known:
        raise call.unsupported("the rank of its elements is not known")
    given, element = call.has("init_length"), [size or 0 for size in type_.shape]
    first = call.int64("init_length", axis_of_one=True) if given else call.sizes("init_length", [1])
    length = None if given and not call.is_constant("init_length") else call.integer("init_length", 1)
    shape = call.node("Concat", [first, call.sizes("element", element)], part="shape", axis=0)
    zero = np.zeros(1, helper.tensor_dtype_to_np_dtype(onnx_type(type_.dtype)))
    call.node("ConstantOfShape", [shape], value=numpy_helper.from_array(zero))
    _set_list_type(call, (length, *element), None if call.flag("dynamic_length", default=True) else length)


@operation("list_length")
def list_length(call: Call) -> None:
    length = call.shape("ls")[0]
    if length is not None:
        call.define(np.array(length, np.int32))
        return
    sizes = call.node("Shape", [call.tensor("ls")], part="sizes", start=0, end=1)
    call.node("Cast", [call.node("Squeeze", [sizes], part="length")], to=onnx.TensorProto.INT32)


@operation("list_read")
def list_read(call: Call) -> None:
    call.node("Gather", [call.tensor("ls"), call.tensor("index")], axis=0)


@operation("list_gather")
def list_gather(call: Call) -> None:
    call.node("Gather", [call.tensor("ls"), call.tensor("indices")], axis=0)


@operation("list_write")
def list_write(call: Call) -> None:
    values = call.node("Unsqueeze", [call.tensor("value"), call.sizes("first", [0])], part="values")
    _write(call, "index", values, call.shape("value"))


@operation("list_scatter")
def list_scatter(call: Call) -> None:
    _write(call, "indices", call.tensor("value"), call.shape("value")[1:])


def _write(call: Call, parameter: str, values: str, element: Shape) -> None:
    """`values` [N, *element] go to the positions in `parameter`, which make a list of dynamic length longer."""
    fixed, length = call.type("ls").length, call.shape("ls")[0]
    if fixed is None:
        highest = max(call.ints(parameter, []), default=-1) if call.is_constant(parameter) else None
        length = None if length is None or highest is None else max(length, highest + 1)
    positions = call.node("Reshape", [call.int64(parameter), call.sizes("column", [-1, 1])], part="positions")
    fits = None not in (length, *element) and call.shape("ls") == (length, *element)
    written = call.tensor("ls") if fits else _grown(call, positions, values)
    call.node("ScatterND", [written, positions, values])
    _set_list_type(call, (length, *element), fixed)


def _grown(call: Call, positions: str, values: str) -> str:
    """The list with zeros at the end of every axis, so that `values` fit in at `positions`."""
    one = call.sizes("one", [1])
    last = call.node("ReduceMax", [positions], part="last", keepdims=1)  # [1, 1]
    needed = call.node("Add", [call.node("Reshape", [last, one], part="end"), one], part="needed")
    element = call.node("Shape", [values], part="element", start=1)
    target = call.node("Concat", [needed, element], part="target", axis=0)
    current = call.node("Shape", [call.tensor("ls")], part="current")
    missing = call.node("Sub", [target, current], part="missing")
    after = call.node("Max", [missing, call.sizes("none", [0])], part="after")
    pads = call.node("Concat", [call.sizes("before", [0] * call.rank("ls")), after], part="pads", axis=0)
    return call.node("Pad", [call.tensor("ls"), pads], part="grown")


def _set_list_type(call: Call, shape: Shape, fixed: int | None) -> None:
    """`shape` is the tensor's, with the length in front; `fixed` is the length of a list that does not grow."""
    call.graph.types[call.output] = replace(call.output_type, shape=shape, rank_known=True, length=fixed)
