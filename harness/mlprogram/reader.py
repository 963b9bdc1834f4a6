"""Read a `.mlpackage` that holds an ML program into a small typed `Program`.

The protobuf is parsed as it stands; no coremltools converter runs. Weights stay on disk until `Weights` is asked for
them. This module must know nothing of ONNX, must follow no path that is not checked, and must allocate nothing for a
size that is only declared. Whatever a package holds, the one error that it raises is PackageError.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.features import (
    ILLEGIBLE,
    check_name,
    check_size,
    illegible,
    read_feature,
    read_input,
)
from coreml_prune_bench.mlprogram.named import (
    PIPELINES,
    file_problem,
    folder_problem,
    models_of,
    models_told,
    refuse_pointer,
    type_problem,
)
from coreml_prune_bench.mlprogram.pipeline import MAIN, joined, pipeline_inputs, suppression
from coreml_prune_bench.mlprogram.program import Block, Operation, Program
from coreml_prune_bench.mlprogram.specification import new_specification
from coreml_prune_bench.mlprogram.values import (
    MIL_TO_NUMPY,
    SUB_BYTE_BITS,
    Argument,
    Constant,
    Immediate,
    NamedType,
    Reference,
    Stored,
    TensorType,
    has_nan,
    packed_bytes,
    unpacked,
)
from coreml_prune_bench.mlprogram.weights import DAMAGED, Weights, path_inside

_PROTO_TO_MIL = {"FLOAT16": "fp16", "FLOAT32": "fp32", "FLOAT64": "fp64"}

_MOST_OPERATIONS = 100_000
"""Of one function, nested blocks included. Large language models have some ten thousand."""
_MOST_FEATURES = 10_000
"""Inputs, outputs and states together. Large language models have a hundred."""
_MOST_SPECIFICATION_BYTES = (2 << 30) - 1
"""Protobuf's own limit."""

_KINDS = {"floats": "f", "doubles": "f", "ints": "iu", "longInts": "iu", "bools": "b"}
"""NumPy's kinds of the element types that each of protobuf's lists of numbers can hold."""


def read(path: str | Path, function: str | None = None) -> Program:
    """Read a function (None: the default one) of the package at `path`.

    A pipeline of ML programs and non-maximum suppressions is read as one program that does what they do in turn.
    Raises PackageError unless it is a `.mlpackage` that holds such a pipeline, or an ML program with that function.
    """
    package = Path(path)
    return _of_model(package, specification(package), function)


def _of_model(package: Path, spec: Any, function: str | None) -> Program:
    kind = spec.WhichOneof("Type")
    if kind == "mlProgram":
        return _of_ml_program(package, spec, function)
    if problem := type_problem(spec):
        raise PackageError(f"{package}: {problem}")
    if function not in (None, MAIN):
        raise PackageError(f"{package}: no function {function!r}, expected one of {MAIN}")
    return _of_pipeline(package, spec)


def _of_pipeline(package: Path, spec: Any) -> Program:
    inputs = pipeline_inputs(package, spec.description)
    known = {feature.name for feature in inputs}
    parts: list[Program] = []
    for model in models_of(spec):
        is_program = model.WhichOneof("Type") in ("mlProgram", *PIPELINES)
        parts.append(_of_model(package, model, None) if is_program else suppression(package, model, known))
        known.update(feature.name for feature in parts[-1].outputs)
        if sum(len(part.operations) for part in parts) > _MOST_OPERATIONS:
            raise PackageError(f"{package}: its models have more than {_MOST_OPERATIONS:,} operations")
    weights = Weights(package, model_file(package).parent, of=f" of its pipeline of {models_told(spec)}")
    return joined(package, spec, inputs, parts, weights)


def _of_ml_program(package: Path, spec: Any, function: str | None) -> Program:
    name = function or spec.description.defaultFunctionName or MAIN
    functions = tuple(sorted(spec.mlProgram.functions))
    if name not in functions:
        raise PackageError(f"{package}: no function {name!r}, expected one of {', '.join(functions)}")
    body = spec.mlProgram.functions[name]
    if body.opset not in body.block_specializations:
        raise PackageError(f"{package}: function {name!r} has no block for its operation set {body.opset!r}")
    if _operations_in(body.block_specializations[body.opset]) > _MOST_OPERATIONS:
        raise PackageError(f"{package}: function {name!r} has more than {_MOST_OPERATIONS:,} operations")
    block = _block(package, body.block_specializations[body.opset])
    description = _description(spec, name)
    if sum(map(len, (body.inputs, description.input, description.output, description.state))) > _MOST_FEATURES:
        raise PackageError(f"{package}: function {name!r} has more than {_MOST_FEATURES:,} inputs and outputs")
    return Program(
        package=package,
        function=name,
        functions=functions,
        specification_version=spec.specificationVersion,
        opset=body.opset,
        inputs=tuple(read_input(package, feature, description) for feature in description.input),
        outputs=tuple(dict.fromkeys(read_feature(package, feature, description) for feature in description.output)),
        states=tuple(read_input(package, feature, description) for feature in description.state),
        arguments=tuple(_named_type(package, argument) for argument in body.inputs),
        operations=block.operations,
        results=tuple(dict.fromkeys(block.results)),  # coremltools lists a value as often as the network returned it
        weights=Weights(package, model_file(package).parent),
    )


def model_file(package: Path) -> Path:
    """The file of a package's model specification: the root that its manifest names. Raises PackageError."""
    if not package.exists():
        raise PackageError(f"{package}: no such package")
    if package.is_file():
        raise PackageError(f"{package}: {file_problem(package)}")
    manifest = package / "Manifest.json"
    if not manifest.is_file():
        raise PackageError(f"{package}: {folder_problem(package)}")
    refuse_pointer(manifest)
    try:
        entries = json.loads(manifest.read_bytes())
        file = package / "Data" / entries["itemInfoEntries"][entries["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackageError(f"{manifest}: does not name a root model; {DAMAGED}") from error
    name = str(file).removeprefix(f"{package}/")
    path_inside(package, file, f"the model file {name} that its manifest names")
    refuse_pointer(file)
    return file


def specification(package: Path) -> Any:
    """A package's model specification, as coremltools' message; raises PackageError where it cannot be read.

    In place of coremltools' `load_spec`, which writes the package's manifest anew: reading changes no package.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    file = model_file(package)
    name, size = file.relative_to(package), file.stat().st_size
    if size > _MOST_SPECIFICATION_BYTES:
        raise PackageError(f"{package}: {name} has {size:,} bytes, more than a model specification can have")
    if not size:  # which protobuf takes for a model without anything
        raise PackageError(f"{package}: {name} is empty; {DAMAGED}")
    spec = new_specification()
    try:
        spec.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise PackageError(f"{package}: {name} is not a Core ML model specification; {DAMAGED}") from error
    return spec


def _operations_in(block: Any) -> int:
    nested = (inner for operation in block.operations for inner in operation.blocks)
    return len(block.operations) + sum(map(_operations_in, nested))


def _description(spec: Any, function: str) -> Any:
    """Where inputs and outputs are declared: a package of several functions has a description for each."""
    for description in spec.description.functions:
        if description.name == function:
            return description
    return spec.description


def _named_type(package: Path, named: Any) -> NamedType:
    name = named.name
    check_name(package, name)
    try:
        return NamedType(name, _tensor_type(named.type))
    except ILLEGIBLE as error:
        raise illegible(package, f"the type of {name!r}", error) from error


def _tensor_type(value_type: Any) -> TensorType:
    match value_type.WhichOneof("type"):
        case "tensorType":
            tensor = value_type.tensorType
            shape = tuple([d.constant.size if d.HasField("constant") else None for d in tensor.dimensions])
            check_size(shape)
            variadic = None in shape and any(d.unknown.variadic for d in tensor.dimensions)
            rank_known = tensor.rank >= 0 and not variadic
            dtype = _element_type(tensor.DESCRIPTOR, tensor.dataType)
            return TensorType(dtype, shape if rank_known else (), rank_known=rank_known)
        case "stateType":
            return replace(_tensor_type(value_type.stateType.wrappedType), kind="state")
        case "listType":
            length, element = value_type.listType.length, _tensor_type(value_type.listType.type)
            fixed = int(length.constant.size) if length.HasField("constant") else None
            check_size((*element.shape, fixed))
            return replace(element, kind="list", length=fixed)
        case other:
            return TensorType(str(other).removesuffix("Type"), (), kind="dictionary")


@functools.cache
def _element_type(tensor_type: Any, number: int) -> str:
    """MIL's word for an element type, which protobuf's descriptor of tensor types names."""
    names = tensor_type.fields_by_name["dataType"].enum_type.values_by_number
    if number not in names:
        raise ValueError(f"element type {number} is not known")
    name = names[number].name
    return _PROTO_TO_MIL.get(name, name.lower())


def _block(package: Path, block: Any) -> Block:
    return Block(
        inputs=tuple(_named_type(package, argument) for argument in block.inputs),
        operations=tuple(_operation(package, operation) for operation in block.operations),
        results=tuple(block.outputs),
    )


def _operation(package: Path, operation: Any) -> Operation:
    outputs = tuple(_named_type(package, output) for output in operation.outputs)
    owner = ", ".join(output.name for output in outputs)
    try:
        attributes = {key: _constant(value, owner) for key, value in operation.attributes.items()}
        inputs = {key: _arguments(value.arguments, owner) for key, value in operation.inputs.items()}
    except ILLEGIBLE as error:
        raise illegible(package, f"operation {operation.type!r} ({owner})", error) from error
    name = attributes.pop("name", None)
    return Operation(
        type=operation.type,
        name=name.value if isinstance(name, Immediate) and isinstance(name.value, str) else "",
        inputs=inputs,
        attributes=attributes,
        outputs=outputs,
        blocks=tuple(_block(package, block) for block in operation.blocks),
    )


def _arguments(bindings: Sequence[Any], owner: str) -> tuple[Argument, ...]:
    return tuple(
        Reference(binding.name) if binding.WhichOneof("binding") == "name" else _constant(binding.value, owner)
        for binding in bindings
    )


def _constant(value: Any, owner: str = "") -> Constant:
    """Raises ValueError where it is none, as all that follows."""
    type_ = _tensor_type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        return Stored(type_, value.blobFileValue.fileName, value.blobFileValue.offset, owner)
    immediate = value.immediateValue
    match immediate.WhichOneof("value"), type_.kind:
        case "tensor", "tensor":
            return Immediate(type_, _tensor(type_, immediate.tensor))
        case "list", "list":
            members = [_constant(member, owner) for member in immediate.list.values]
            values = tuple(member.value for member in members if isinstance(member, Immediate))
            if len(values) != len(members):
                raise ValueError("a list with elements in the weight file")
            return Immediate(type_, values)
        case held, declared:
            raise ValueError(f"a constant of kind {held} and type {declared}")


def _tensor(type_: TensorType, tensor: Any) -> np.ndarray | str:
    """MIL keeps 8-bit integers, Float16 and what is smaller as raw little-endian bytes, the rest as protobuf lists."""
    kind = tensor.WhichOneof("value")
    values = getattr(tensor, kind).values if kind else b""
    if type_.dtype == "string":
        strings = [str(value) for value in values]
        return strings[0] if type_.shape == () and strings else np.array(strings).reshape(type_.fixed_shape)
    if type_.dtype not in MIL_TO_NUMPY and type_.dtype not in SUB_BYTE_BITS:
        raise ValueError(f"a constant of element type {type_.dtype}")
    elements = math.prod(type_.fixed_shape)
    if kind == "bytes" or not kind:
        if len(values) != packed_bytes(type_.dtype, elements):
            raise ValueError(f"a constant of shape {list(type_.shape)} has {len(values)} bytes")
        return _number(unpacked(np.frombuffer(values, np.uint8), type_.dtype, type_.fixed_shape))
    if len(values) != elements:
        raise ValueError(f"a constant of shape {list(type_.shape)} has {len(values)} elements")
    dtype = np.dtype(MIL_TO_NUMPY.get(type_.dtype, np.int8))
    if dtype.kind not in _KINDS.get(kind, ""):
        raise ValueError(f"{kind} in a constant of type {type_.dtype}")
    return _number(np.array(list(values), dtype).reshape(type_.fixed_shape))


def _number(array: np.ndarray) -> np.ndarray:
    """The array. Raises ValueError for a small weight with NaN in it; a scalar may be meant, to fill with."""
    if array.ndim and has_nan(array):
        raise ValueError("it has elements that are not a number (NaN)")
    return array
