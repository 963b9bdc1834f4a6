"""Translate a `Program` to an ONNX model: for any batch, or for exactly the shapes that it is given.

ONNX names are the MIL names. It must run nothing and know no operation: those stand in the modules of `ops`, which it
has register themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.program import Feature, Program
from coreml_prune_bench.mlprogram.values import NamedType, TensorType
from coreml_prune_bench.runtimes.portable import ops, ops_coreai  # noqa: F401  (register the operations)
from coreml_prune_bench.runtimes.portable.constants import IR_VERSION, ONNX_OPSET, tensor_proto
from coreml_prune_bench.runtimes.portable.graph import Call, Graph, Precision, onnx_type
from coreml_prune_bench.runtimes.portable.interface import Interface
from coreml_prune_bench.runtimes.portable.registry import MixesSamples, apply, lookup
from coreml_prune_bench.runtimes.portable.simplify import simplify, used_names

_BATCH = "batch"
_LARGE_BYTES = 4096
"""Of a weight, which needs not stand in the model for ONNX Runtime to infer shapes."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of one sample for each input, as the features declare it: an image is [H, W, C]."""


@dataclass(frozen=True, eq=False)
class Translation:
    """`weights` are the initializers that `model` lacks, by name: those that are too large to be copied about."""

    model: onnx.ModelProto
    weights: Mapping[str, np.ndarray]
    interface: Interface


def translate(program: Program, shapes: Shapes, precision: Precision = "float32") -> Translation:
    """An image input becomes uint8 [N, H, W, C] (channels R, G, B); any other input and output keeps its shape.

    Raises UnsupportedOperationError for an operation that is not known, PackageError for an input or output of a kind
    that is not.
    """
    if not program.states and not any(feature.flexible for feature in program.inputs):
        try:
            return _build(program, shapes, precision, any_batch=True)
        except MixesSamples:
            pass
    return _build(program, shapes, precision, any_batch=False)


def check_known(program: Program) -> None:
    """Raises UnsupportedOperationError for the first operation that is not known, inside blocks too."""
    graph, waiting = Graph(program), list(reversed(program.operations))
    while waiting:
        operation = waiting.pop()
        lookup(Call(graph, operation))
        waiting += [inner for block in reversed(operation.blocks) for inner in reversed(block.operations)]


def _build(program: Program, shapes: Shapes, precision: Precision, *, any_batch: bool) -> Translation:
    graph = Graph(program, precision)
    inputs = [_input(graph, argument, shapes, any_batch=any_batch) for argument in program.arguments]
    for operation in program.operations:
        apply(graph, operation)
    given = {argument.name for argument in program.arguments}
    made = {output for node in graph.nodes for output in node.output} | given
    outputs = {name: _output(graph, name, given, made, any_batch=any_batch) for name in _result_names(graph)}
    states = {name: _state_output(graph, name) for name in graph.states}
    returned = [info for _, info in (*outputs.values(), *states.values())]
    nodes = simplify(graph.nodes, [info.name for info in returned], graph.arrays)
    used = set(used_names(nodes))
    arrays = {name: array for name, array in graph.arrays.items() if name in used}
    weights = {name: array for name, array in arrays.items() if array.nbytes >= _LARGE_BYTES}
    initializers = [tensor_proto(name, array) for name, array in arrays.items() if name not in weights]
    model = helper.make_model(
        helper.make_graph(nodes, "main", inputs, returned, initializers),
        opset_imports=[helper.make_opsetid("", ONNX_OPSET)],
        ir_version=IR_VERSION,
        producer_name="coreml-prune-bench",
    )
    interface = Interface(
        inputs=program.inputs,
        outputs=program.outputs,
        states=program.states,
        results=program.results,
        any_batch=any_batch,
        output_names={name: onnx_name for name, (onnx_name, _) in outputs.items()},
        state_names={name: onnx_name for name, (onnx_name, _) in states.items()},
        classifier=graph.classifier,
        time_varies=any(attribute.HasField("g") for node in nodes for attribute in node.attribute),
    )
    return Translation(model, weights, interface)


# --- inputs


def _input(graph: Graph, argument: NamedType, shapes: Shapes, *, any_batch: bool) -> onnx.ValueInfoProto:
    if argument.type.kind == "state":
        graph.declare(NamedType(argument.name, argument.type))
        graph.states[argument.name] = argument.name
        return _value_info(argument.name, _element_type(graph, argument), argument.type.shape, None)
    feature = next((feature for feature in graph.program.inputs if feature.name == argument.name), None)
    if feature is None:
        raise PackageError(
            f"{graph.program.package}: the program's input {argument.name!r} is not declared by the model"
        )
    if any_batch:
        if argument.type.shape[:1] != (1,):
            raise MixesSamples
        graph.batched.add(argument.name)
    leading = _BATCH if any_batch else None
    shape = shapes[feature.name]
    if feature.kind == "image":
        height, width, channels = shape
        graph.declare(NamedType(argument.name, replace(argument.type, shape=(1, channels, height, width))))
        _image_input(graph, feature, _element_type(graph, argument))
        element = onnx.TensorProto.UINT8 if feature.dtype == "uint8" else onnx.TensorProto.FLOAT
        return _value_info(feature.name, element, (1, *shape), leading)
    type_ = replace(argument.type, shape=_argument_shape(argument.type, shape), rank_known=True)
    graph.declare(NamedType(argument.name, type_))
    if feature.dtype == "float16":
        graph.round_to_half(argument.name)  # as Core ML does on the way in
    return _value_info(feature.name, _element_type(graph, argument), type_.shape, leading)


def _argument_shape(type_: TensorType, declared: tuple[int, ...]) -> tuple[int, ...]:
    """Core ML has no scalar inputs: where the program takes one, the model declares a vector of one."""
    return () if type_.rank_known and type_.shape == () and declared == (1,) else declared


def _image_input(graph: Graph, image: Feature, element: int) -> None:
    """From [N, H, W, C] to what the program takes: [N, C, H, W] in the order of the colour space.

    Its elements are Float32, or Int32 where the program wants the bytes themselves.
    """
    # Moving bytes is cheaper than moving numbers, so the cast comes last.
    planes = graph.node("Transpose", [image.name], f"{image.name}/planes", perm=[0, 3, 1, 2])  # [N, C, H, W]
    if image.color_space == "BGR":
        order = graph.initializer(f"{image.name}/order", np.array([2, 1, 0], np.int64))
        planes = graph.node("Gather", [planes, order], f"{image.name}/bgr", axis=1)
    graph.alias(image.name, graph.node("Cast", [planes], f"{image.name}/cast", to=element))


# --- outputs


def _result_names(graph: Graph) -> Sequence[str]:
    """What the ONNX model returns: a classifier's scores stand for its label and its dictionary."""
    label = graph.classifier.label if graph.classifier else None
    return [name for name in graph.program.results if name != label]


def _output(
    graph: Graph, name: str, given: Set[str], made: Set[str], *, any_batch: bool
) -> tuple[str, onnx.ValueInfoProto]:
    """The ONNX name under which the model returns `name`, and its type.

    given, made: the names of the model's inputs, and those that nodes and inputs have taken.
    """
    leading = _BATCH if any_batch else None
    if any_batch and name not in graph.batched:
        raise MixesSamples
    if graph.classifier and name == graph.classifier.probabilities:
        return name, _value_info(name, onnx.TensorProto.FLOAT, (1, len(graph.classifier.classes)), leading)
    if any_batch and graph.types[name].shape[:1] != (1,):
        raise MixesSamples  # N samples of several rows each are not what a caller can take apart
    source = graph.tensor(name)
    # Where something else stands for it, that is no reason for the output to lose its name, if the name is free.
    if source != name or name in graph.arrays or name in given:
        taken = name in graph.arrays or name in made
        source = graph.node("Identity", [source], f"{name}/result" if taken else name)
    type_ = graph.types[name]
    element = _element_type(graph, NamedType(name, type_))
    if not type_.rank_known:
        return source, helper.make_tensor_value_info(source, element, None)
    return source, _value_info(source, element, type_.shape, leading)


def _state_output(graph: Graph, name: str) -> tuple[str, onnx.ValueInfoProto]:
    updated = graph.node("Identity", [graph.states[name]], f"{name}/updated")
    type_ = graph.types[name]
    return updated, _value_info(updated, _element_type(graph, NamedType(name, type_)), type_.shape, None)


def _element_type(graph: Graph, named: NamedType) -> int:
    try:
        return onnx_type(named.type.dtype)
    except KeyError as error:
        raise PackageError(f"{graph.program.package}: {named.name!r} has element type {named.type.dtype}") from error


def _value_info(name: str, element_type: int, shape: Sequence[int | None], leading: str | None) -> onnx.ValueInfoProto:
    sizes: list[int | str] = [f"{name}_{axis}" if size is None else size for axis, size in enumerate(shape)]
    if leading:
        sizes[0] = leading
    return helper.make_tensor_value_info(name, element_type, sizes)
