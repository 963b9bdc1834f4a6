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
from typing import Any, Literal

import numpy as np

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.named import file_problem, folder_problem, refuse_pointer, type_problem
from coreml_prune_bench.mlprogram.program import Block, Feature, Operation, Program
from coreml_prune_bench.mlprogram.specification import new_specification
from coreml_prune_bench.mlprogram.values import (
    MIL_TO_NUMPY,
    MOST_BYTES,
    SUB_BYTE_BITS,
    Argument,
    Constant,
    Immediate,
    NamedType,
    Reference,
    Shape,
    Stored,
    TensorType,
    has_nan,
    packed_bytes,
    unpacked,
)
from coreml_prune_bench.mlprogram.weights import DAMAGED, Weights, path_inside

_PROTO_TO_MIL = {"FLOAT16": "fp16", "FLOAT32": "fp32", "FLOAT64": "fp64"}

_MOST_DIMENSIONS = 32
_MOST_OPERATIONS = 100_000
"""Of one function, nested blocks included. Large language models have some ten thousand."""
_MOST_FEATURES = 10_000
"""Inputs, outputs and states together. Large language models have a hundred."""
_MOST_LETTERS = 1_000
"""Of the name of a value: what is made on the way to it is named after it."""
_MOST_SPECIFICATION_BYTES = (2 << 30) - 1
"""Protobuf's own limit."""
_MOST_ELEMENTS = MOST_BYTES // 4  # Float32 or Int32, in which everything is computed

_KINDS = {"floats": "f", "doubles": "f", "ints": "iu", "longInts": "iu", "bools": "b"}
"""NumPy's kinds of the element types that each of protobuf's lists of numbers can hold."""

_COLOR_SPACES = ("GRAYSCALE", "GRAYSCALE_FLOAT16", "RGB", "BGR")


def read(path: str | Path, function: str | None = None) -> Program:
    """Read a function (None: the default one) of the package at `path`.

    Raises PackageError unless it is a `.mlpackage` that holds an ML program with that function.
    """
    package = Path(path)
    spec = specification(package)
    if spec.WhichOneof("Type") != "mlProgram":
        raise PackageError(f"{package}: {type_problem(spec)}")
    name = function or spec.description.defaultFunctionName or "main"
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
        inputs=tuple(_input(package, feature, description) for feature in description.input),
        outputs=tuple(dict.fromkeys(_feature(package, feature, description) for feature in description.output)),
        states=tuple(_input(package, feature, description) for feature in description.state),
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
    spec = new_specification()
    try:
        spec.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise PackageError(f"{package}: {name} is not a Core ML model specification; {DAMAGED}") from error
    return spec


_ILLEGIBLE = (LookupError, ValueError, TypeError, ArithmeticError)
"""What reading raises where protobuf holds what no intact package does."""


def _illegible(package: Path, what: str, error: Exception) -> PackageError:
    return PackageError(f"{package}: {what} cannot be read: {error}; {DAMAGED}")


def _operations_in(block: Any) -> int:
    nested = (inner for operation in block.operations for inner in operation.blocks)
    return len(block.operations) + sum(map(_operations_in, nested))


def _description(spec: Any, function: str) -> Any:
    """Where inputs and outputs are declared: a package of several functions has a description for each."""
    for description in spec.description.functions:
        if description.name == function:
            return description
    return spec.description


def _input(package: Path, feature: Any, description: Any) -> Feature:
    read = _feature(package, feature, description)
    if read.kind not in ("image", "array"):
        raise PackageError(f"{package}: input {read.name!r} is declared as {read.kind}, expected an image or an array")
    return read


def _feature(package: Path, feature: Any, description: Any) -> Feature:
    try:
        return _described(package, feature, description)
    except _ILLEGIBLE as error:
        raise _illegible(package, f"the description of {feature.name!r}", error) from error


def _described(package: Path, feature: Any, description: Any) -> Feature:
    kind = feature.type.WhichOneof("Type")
    if feature.name == description.predictedFeatureName and kind in ("stringType", "int64Type"):
        return Feature(feature.name, "label", (), "str" if kind == "stringType" else "int64")
    if kind == "dictionaryType":
        return Feature(feature.name, "probabilities", (), "float64")
    if kind == "imageType":
        return _image_feature(feature.name, feature.type.imageType)
    if kind == "multiArrayType":
        return _array_feature(feature.name, feature.type.multiArrayType, optional=feature.type.isOptional)
    if kind == "stateType":
        return _array_feature(feature.name, feature.type.stateType.arrayType, optional=False)
    raise PackageError(f"{package}: {feature.name!r} is declared as {kind}, expected an image or a multi-array")


def _image_feature(name: str, image: Any) -> Feature:
    color_space = image.ColorSpace.Name(image.colorSpace)
    if color_space not in _COLOR_SPACES:
        raise ValueError(f"colour space {color_space}")
    channels = 1 if color_space.startswith("GRAYSCALE") else 3
    dtype = "float16" if color_space == "GRAYSCALE_FLOAT16" else "uint8"
    default = (int(image.height), int(image.width), channels)
    _check_size(default)
    match image.WhichOneof("SizeFlexibility"):
        case "enumeratedSizes":
            shapes = tuple((int(s.height), int(s.width), channels) for s in image.enumeratedSizes.sizes)
            return _flexible(name, "image", dtype, default, shapes=shapes, color_space=color_space)
        case "imageSizeRange":
            ranges = [image.imageSizeRange.heightRange, image.imageSizeRange.widthRange]
            sizes = (*(_bounds(r) for r in ranges), (channels, channels))
            return _flexible(name, "image", dtype, default, sizes=sizes, color_space=color_space)
    return Feature(name, "image", default, dtype, color_space, default)


def _array_feature(name: str, array: Any, *, optional: bool) -> Feature:
    dtype = np.dtype(array.ArrayDataType.Name(array.dataType).lower().replace("double", "float64")).name
    shape = tuple(int(size) for size in array.shape)
    _check_size(shape)
    default = None
    if optional:
        field_name = array.WhichOneof("defaultOptionalValue")
        default = float(getattr(array, field_name)) if field_name else 0.0
    match array.WhichOneof("ShapeFlexibility"):
        case "enumeratedShapes":
            shapes = tuple(tuple(int(size) for size in s.shape) for s in array.enumeratedShapes.shapes)
            return _flexible(name, "array", dtype, shape, shapes=shapes, default=default)
        case "shapeRange":
            sizes = tuple(_bounds(r) for r in array.shapeRange.sizeRanges)
            return _flexible(name, "array", dtype, shape, sizes=sizes, default=default)
    return Feature(name, "array", shape, dtype, None, shape, default=default)


def _bounds(size_range: Any) -> tuple[int, int | None]:
    """Core ML writes -1 for no upper bound."""
    return int(size_range.lowerBound), None if size_range.upperBound < 0 else int(size_range.upperBound)


def _flexible(
    name: str,
    kind: Literal["image", "array"],
    dtype: str,
    default_shape: tuple[int, ...],
    *,
    shapes: tuple[tuple[int, ...], ...] = (),
    sizes: tuple[tuple[int, int | None], ...] = (),
    color_space: str | None = None,
    default: float | None = None,
) -> Feature:
    if shapes:
        shape = tuple(only[0] if len(only := list(set(column))) == 1 else None for column in zip(*shapes, strict=False))
    else:
        shape = tuple(low if low == high else None for low, high in sizes)
    return Feature(name, kind, shape, dtype, color_space, default_shape, sizes, shapes, default)


def _check_size(shape: Shape) -> None:
    """Raises ValueError where nothing can be that large."""
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{len(shape)} dimensions, expected at most {_MOST_DIMENSIONS}")
    # An open size, and one of zero, must not make another one small.
    sizes = [size or 1 for size in shape]
    if min(sizes, default=1) < 0:
        raise ValueError(f"shape {list(shape)} has a negative size")
    if math.prod(sizes) > _MOST_ELEMENTS:
        raise ValueError(f"shape {list(shape)} is beyond {MOST_BYTES >> 30} GiB")


def _named_type(package: Path, named: Any) -> NamedType:
    name = named.name
    if len(name) > _MOST_LETTERS:
        raise PackageError(f"{package}: a value is called {name[:20]!r}... in {len(name):,} letters; {DAMAGED}")
    if not name or "/" in name or not name.isprintable():
        raise PackageError(f"{package}: a value is called {name!r}, which is no name; {DAMAGED}")
    try:
        return NamedType(name, _tensor_type(named.type))
    except _ILLEGIBLE as error:
        raise _illegible(package, f"the type of {name!r}", error) from error


def _tensor_type(value_type: Any) -> TensorType:
    match value_type.WhichOneof("type"):
        case "tensorType":
            tensor = value_type.tensorType
            shape = tuple([d.constant.size if d.HasField("constant") else None for d in tensor.dimensions])
            _check_size(shape)
            variadic = None in shape and any(d.unknown.variadic for d in tensor.dimensions)
            rank_known = tensor.rank >= 0 and not variadic
            dtype = _element_type(tensor.DESCRIPTOR, tensor.dataType)
            return TensorType(dtype, shape if rank_known else (), rank_known=rank_known)
        case "stateType":
            return replace(_tensor_type(value_type.stateType.wrappedType), kind="state")
        case "listType":
            length, element = value_type.listType.length, _tensor_type(value_type.listType.type)
            fixed = int(length.constant.size) if length.HasField("constant") else None
            _check_size((*element.shape, fixed))
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
    except _ILLEGIBLE as error:
        raise _illegible(package, f"operation {operation.type!r} ({owner})", error) from error
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
