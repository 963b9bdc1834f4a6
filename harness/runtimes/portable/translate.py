"""Translate a `Program` to an ONNX model that takes any batch, or exactly one sample where that is all that is safe.

Floats are Float32 throughout, ONNX names are the MIL names. It must run nothing and know no operation: those stand in
the `ops_*` modules, which it imports so that they register.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from harness.errors import PackageError
from harness.runtimes.portable import (  # noqa: F401
    ops_activation,
    ops_compression,
    ops_convolution,
    ops_elementwise,
    ops_linear,
    ops_normalization,
    ops_pooling,
    ops_reduction,
    ops_tensor,
)
from harness.runtimes.portable.graph import Call, Graph, onnx_type
from harness.runtimes.portable.reader import Feature, NamedType, Operation, Program
from harness.runtimes.portable.registry import lookup

_ONNX_OPSET = 20  # the first with Gelu
_IR_VERSION = 9  # what opset 20 came with
_BATCH = "batch"

_SUPPORTED_IMAGES = ("RGB", "BGR", "GRAYSCALE")


@dataclass(frozen=True)
class Translation:
    """`any_batch`: the leading dimension of every input and output is symbolic. Otherwise it is as declared, 1."""

    model: onnx.ModelProto
    any_batch: bool


class _MixesSamples(Exception):
    """The program does not provably keep samples apart. Never leaves this module."""


def translate(program: Program) -> Translation:
    """An image input becomes uint8 [N, H, W, C] (channels R, G, B); any other input and output keeps its shape.

    Raises UnsupportedOperationError for an operation that is not known, PackageError for an input or output of a kind
    that is not.
    """
    try:
        return Translation(_build(program, any_batch=True), any_batch=True)
    except _MixesSamples:
        return Translation(_build(program, any_batch=False), any_batch=False)


def _build(program: Program, *, any_batch: bool) -> onnx.ModelProto:
    graph = Graph(program)
    inputs = [_input(graph, argument, any_batch=any_batch) for argument in program.arguments]
    for operation in program.operations:
        _operation(graph, operation)
    outputs = [_output(graph, name, any_batch=any_batch) for name in program.results]
    return helper.make_model(
        helper.make_graph(graph.nodes, "main", inputs, outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", _ONNX_OPSET)],
        ir_version=_IR_VERSION,
        producer_name="coreml-prune-bench",
    )


def _operation(graph: Graph, operation: Operation) -> None:
    call = Call(graph, operation)
    entry = lookup(call)
    for output in operation.outputs:
        graph.types[output.name] = output.type
    if call.batched_parameters():
        if not entry.keeps_batch(call) or any(output.type.shape[:1] != (1,) for output in operation.outputs):
            raise _MixesSamples
        graph.batched.update(output.name for output in operation.outputs)
    entry.translate(call)


def _input(graph: Graph, argument: NamedType, *, any_batch: bool) -> onnx.ValueInfoProto:
    package = graph.program.package
    feature = next((feature for feature in graph.program.inputs if feature.name == argument.name), None)
    if feature is None:
        raise PackageError(f"{package}: the program's input {argument.name!r} is not declared by the model")
    if any_batch:
        if argument.type.shape[:1] != (1,):
            raise _MixesSamples
        graph.batched.add(argument.name)
    graph.types[argument.name] = argument.type
    leading = _BATCH if any_batch else None
    if feature.kind == "image":
        _image_input(graph, feature)
        return _value_info(feature.name, onnx.TensorProto.UINT8, (1, *feature.shape), leading)
    return _value_info(feature.name, _element_type(graph, argument), argument.type.shape, leading)


def _image_input(graph: Graph, image: Feature) -> None:
    """From uint8 [N, H, W, C] to what the program takes: Float32 [N, C, H, W], in the order of the colour space."""
    if image.color_space not in _SUPPORTED_IMAGES:
        expected = ", ".join(_SUPPORTED_IMAGES)
        raise PackageError(f"{graph.program.package}: image {image.name!r} is {image.color_space}, expected {expected}")
    # Moving bytes is cheaper than moving floats, so the cast comes last.
    planes = graph.node("Transpose", [image.name], f"{image.name}/planes", perm=[0, 3, 1, 2])  # [N, C, H, W]
    if image.color_space == "BGR":
        order = graph.initializer(f"{image.name}/order", np.array([2, 1, 0], np.int64))
        planes = graph.node("Gather", [planes, order], f"{image.name}/bgr", axis=1)
    graph.alias(image.name, graph.node("Cast", [planes], f"{image.name}/float", to=onnx.TensorProto.FLOAT))


def _output(graph: Graph, name: str, *, any_batch: bool) -> onnx.ValueInfoProto:
    declared = next((feature for feature in graph.program.outputs if feature.name == name), None)
    if declared is not None and declared.kind == "image":
        raise PackageError(f"{graph.program.package}: output {name!r} is an image, expected a multi-array")
    if any_batch and name not in graph.batched:
        raise _MixesSamples
    source = graph.tensor(name)
    if source != name or graph.constant(name) is not None:
        # Something else stands for it, which is no reason for the output to lose its name.
        _name_output(graph, name, source)
    type_ = graph.types[name]
    return _value_info(name, _element_type(graph, NamedType(name, type_)), type_.shape, _BATCH if any_batch else None)


def _name_output(graph: Graph, name: str, source: str) -> None:
    if source == name:
        raise PackageError(f"{graph.program.package}: output {name!r} is a constant, expected a computed value")
    graph.node("Identity", [source], name)


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
