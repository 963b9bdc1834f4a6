"""Read a `.mlpackage` that holds an ML program into a small typed `Program`.

The protobuf is parsed as it stands; no coremltools converter runs. Weights stay on disk until they are asked for, one
by one. This module must know nothing of ONNX, and must hand the native weight reader no offset that it has not checked:
that reader follows whatever it is given.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.errors import PackageError
from harness.quiet import quiet_coremltools

Shape = tuple[int | None, ...]
"""None where a dimension is not fixed by the program."""

_MIL_TO_NUMPY = {
    "fp16": np.float16,
    "fp32": np.float32,
    "fp64": np.float64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
}

_PROTO_TO_MIL = {"FLOAT16": "fp16", "FLOAT32": "fp32", "FLOAT64": "fp64"}

# The reader's method and the type code in the blob's metadata, for each element type that can stand in weight.bin.
# Codes: BlobDataType in coremltools' mlmodel/src/MILBlob.
_STORED = {
    "fp16": ("read_fp16_data", 1),
    "fp32": ("read_float_data", 2),
    "uint8": ("read_uint8_data", 3),
    "int8": ("read_int8_data", 4),
    "int16": ("read_int16_data", 6),
    "uint16": ("read_uint16_data", 7),
    "int32": ("read_int32_data", 14),
    "uint32": ("read_uint32_data", 15),
}

_FILE_HEADER = struct.Struct("<II")  # number of blobs, version
_FILE_VERSION = 2
_BLOB_METADATA = struct.Struct("<IIQQ")  # sentinel, type code, size of the payload, offset of the payload
_BLOB_METADATA_BYTES = 64
_BLOB_SENTINEL = 0xDEADBEEF

_DAMAGED = "the package is damaged, build it again"


def numpy_name(dtype: str) -> str:
    """NumPy's word for a MIL element type; MIL's own where NumPy has no such type."""
    return np.dtype(_MIL_TO_NUMPY[dtype]).name if dtype in _MIL_TO_NUMPY else dtype


@dataclass(frozen=True)
class TensorType:
    """`dtype` is MIL's word: fp16, fp32, int32, uint8, bool, string..."""

    dtype: str
    shape: Shape

    @property
    def fixed_shape(self) -> tuple[int, ...]:
        """The shape of a constant, which has no open size."""
        return tuple(size or 0 for size in self.shape)


@dataclass(frozen=True)
class Reference:
    """Another operation's output, or an input of the program."""

    name: str


@dataclass(frozen=True, eq=False)
class Immediate:
    """A constant that stands in the program itself: an array, or a str for MIL's strings, or a tuple for its lists."""

    type: TensorType
    value: np.ndarray | str | tuple[Any, ...]


@dataclass(frozen=True)
class Stored:
    """A constant whose elements stand in a weight file; `Weights` reads it."""

    type: TensorType
    file: str
    offset: int


Constant = Immediate | Stored
Argument = Reference | Immediate | Stored


@dataclass(frozen=True)
class NamedType:
    name: str
    type: TensorType


@dataclass(frozen=True, eq=False)
class Operation:
    """One statement. `attributes` holds what MIL keeps apart from inputs: a const's `val`, a constexpr's data."""

    type: str
    name: str
    inputs: Mapping[str, tuple[Argument, ...]]
    attributes: Mapping[str, Constant]
    outputs: tuple[NamedType, ...]


@dataclass(frozen=True)
class Feature:
    """An input or output as the model's description declares it.

    `shape` is what one sample has: an image is [H, W, C], an array is as declared. `dtype` is NumPy's word.
    `color_space` is RGB, BGR, GRAYSCALE or GRAYSCALE_FLOAT16 for an image and None for an array.
    """

    name: str
    kind: Literal["image", "array"]
    shape: Shape
    dtype: str
    color_space: str | None = None


@dataclass(frozen=True)
class Weights:
    """The weight files beside the model, read one constant at a time."""

    package: Path
    folder: Path
    _readers: dict[Path, Any] = field(default_factory=dict, compare=False, repr=False)

    def size_bytes(self, stored: Stored) -> int:
        """Bytes of the payload in the weight file, without metadata and alignment. No element is decoded."""
        return self._locate(stored)[2]

    def array(self, constant: Constant) -> np.ndarray:
        """The constant's elements, in its own element type and shape."""
        if isinstance(constant, Immediate):
            return np.asarray(constant.value)
        path, code, size = self._locate(constant)
        type_, where = constant.type, f"{path}: the weight at offset {constant.offset}"
        if type_.dtype not in _STORED:
            raise PackageError(f"{where} has element type {type_.dtype}, which cannot be read yet")
        method, expected_code = _STORED[type_.dtype]
        if code != expected_code:
            raise PackageError(f"{where} is not {type_.dtype} data; {_DAMAGED}")
        expected = math.prod(type_.fixed_shape) * np.dtype(_MIL_TO_NUMPY[type_.dtype]).itemsize
        if size != expected:
            raise PackageError(f"{where} has {size} bytes, expected {expected} for {list(type_.shape)}; {_DAMAGED}")
        flat = getattr(self._reader(path), method)(constant.offset)
        # The native reader hands Float16 out as uint16.
        return flat.view(_MIL_TO_NUMPY[type_.dtype]).reshape(type_.fixed_shape)

    def _reader(self, path: Path) -> Any:
        if path not in self._readers:
            quiet_coremltools()
            from coremltools.libmilstoragepython import _BlobStorageReader

            self._readers[path] = _BlobStorageReader(str(path))
        return self._readers[path]

    def _locate(self, stored: Stored) -> tuple[Path, int, int]:
        """The weight file, the blob's type code and its payload's size, once both are known to lie inside the file."""
        path = self._path(stored)
        file_bytes = path.stat().st_size
        where = f"{path}: the weight at offset {stored.offset}"
        if stored.offset + _BLOB_METADATA_BYTES > file_bytes:
            raise PackageError(f"{where} lies outside the file of {file_bytes} bytes; {_DAMAGED}")
        with path.open("rb") as file:
            _, version = _FILE_HEADER.unpack(file.read(_FILE_HEADER.size))
            file.seek(stored.offset)
            sentinel, code, size, start = _BLOB_METADATA.unpack(file.read(_BLOB_METADATA.size))
        if version != _FILE_VERSION:
            raise PackageError(f"{path}: weight file version {version}, expected {_FILE_VERSION}; {_DAMAGED}")
        if sentinel != _BLOB_SENTINEL:
            raise PackageError(f"{where} is not the start of a weight; {_DAMAGED}")
        if start + size > file_bytes:
            raise PackageError(
                f"{where} ends at byte {start + size} of {file_bytes}: the file is truncated; {_DAMAGED}"
            )
        return path, code, size

    def _path(self, stored: Stored) -> Path:
        path = (self.folder / stored.file.removeprefix("@model_path/")).resolve()
        if not path.is_relative_to(self.package.resolve()):
            raise PackageError(f"{self.package}: the weight file {stored.file} lies outside the package")
        if not path.is_file():
            raise PackageError(f"{self.package}: the weight file {stored.file} is missing")
        return path


@dataclass(frozen=True, eq=False)
class Program:
    """A package's main function. `arguments` are the program's inputs, `inputs` what the model declares for them."""

    package: Path
    specification_version: int
    opset: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    arguments: tuple[NamedType, ...]
    operations: tuple[Operation, ...]
    results: tuple[str, ...]
    weights: Weights


def read(path: str | Path) -> Program:
    """Read the package at `path`. Raises PackageError unless it is a `.mlpackage` that holds an ML program."""
    package = Path(path)
    model_file = _model_file(package)
    spec = _parse(package, model_file)
    kind = spec.WhichOneof("Type")
    if kind != "mlProgram":
        raise PackageError(f"{package}: holds a model of type {kind}, expected an ML program; convert it to mlprogram")
    name = spec.description.defaultFunctionName or "main"
    if name not in spec.mlProgram.functions:
        raise PackageError(f"{package}: the ML program has no function {name!r}")
    function = spec.mlProgram.functions[name]
    if function.opset not in function.block_specializations:
        raise PackageError(f"{package}: function {name!r} has no block for its operation set {function.opset!r}")
    block = function.block_specializations[function.opset]
    description = _description(spec, name)
    return Program(
        package=package,
        specification_version=spec.specificationVersion,
        opset=function.opset,
        inputs=tuple(_feature(package, feature) for feature in description.input),
        outputs=tuple(_feature(package, feature) for feature in description.output),
        arguments=tuple(_named_type(argument) for argument in function.inputs),
        operations=tuple(_operation(package, operation) for operation in block.operations),
        results=tuple(block.outputs),
        weights=Weights(package, model_file.parent),
    )


def _model_file(package: Path) -> Path:
    """The model specification that the package's manifest names as its root."""
    if not package.exists():
        raise PackageError(f"{package}: no such package")
    manifest = package / "Manifest.json"
    if not manifest.is_file():
        raise PackageError(f"{package}: not a .mlpackage, expected a folder with a Manifest.json")
    try:
        entries = json.loads(manifest.read_bytes())
        file = package / "Data" / entries["itemInfoEntries"][entries["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{manifest}: does not name a root model; {_DAMAGED}") from error
    if not file.is_file():
        raise PackageError(f"{package}: the model file {file.relative_to(package)} that its manifest names is missing")
    return file


def _parse(package: Path, model_file: Path) -> Any:
    quiet_coremltools()
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(model_file.read_bytes())
    except DecodeError as error:
        name = model_file.relative_to(package)
        raise PackageError(f"{package}: {name} is not a Core ML model specification; {_DAMAGED}") from error
    return spec


def _description(spec: Any, function: str) -> Any:
    """Where inputs and outputs are declared: a package of several functions has a description for each."""
    for description in spec.description.functions:
        if description.name == function:
            return description
    return spec.description


def _feature(package: Path, feature: Any) -> Feature:
    kind = feature.type.WhichOneof("Type")
    if kind == "imageType":
        image = feature.type.imageType
        color_space = image.ColorSpace.Name(image.colorSpace)
        channels = 1 if color_space.startswith("GRAYSCALE") else 3
        fixed = image.WhichOneof("SizeFlexibility") is None
        size = (image.height, image.width) if fixed else (None, None)
        dtype = "float16" if color_space == "GRAYSCALE_FLOAT16" else "uint8"
        return Feature(feature.name, "image", (*size, channels), dtype, color_space)
    if kind == "multiArrayType":
        array = feature.type.multiArrayType
        dtype = array.ArrayDataType.Name(array.dataType).lower().replace("double", "float64")
        flexible = array.WhichOneof("ShapeFlexibility") is not None
        shape = tuple(None if flexible else int(size) for size in array.shape)
        return Feature(feature.name, "array", shape, dtype)
    raise PackageError(f"{package}: {feature.name!r} is declared as {kind}, expected an image or a multi-array")


def _named_type(named: Any) -> NamedType:
    return NamedType(named.name, _tensor_type(named.type))


def _tensor_type(value_type: Any) -> TensorType:
    kind = value_type.WhichOneof("type")
    if kind != "tensorType":
        return TensorType(str(kind).removesuffix("Type"), ())
    tensor = value_type.tensorType
    name = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[tensor.dataType].name
    shape = tuple(int(d.constant.size) if d.HasField("constant") else None for d in tensor.dimensions)
    return TensorType(_PROTO_TO_MIL.get(name, name.lower()), shape)


def _operation(package: Path, operation: Any) -> Operation:
    attributes = {key: _constant(package, value) for key, value in operation.attributes.items()}
    name = attributes.pop("name", None)
    return Operation(
        type=operation.type,
        name=name.value if isinstance(name, Immediate) and isinstance(name.value, str) else "",
        inputs={key: _arguments(package, value.arguments) for key, value in operation.inputs.items()},
        attributes=attributes,
        outputs=tuple(_named_type(output) for output in operation.outputs),
    )


def _arguments(package: Path, bindings: Sequence[Any]) -> tuple[Argument, ...]:
    return tuple(
        Reference(binding.name) if binding.WhichOneof("binding") == "name" else _constant(package, binding.value)
        for binding in bindings
    )


def _constant(package: Path, value: Any) -> Constant:
    type_ = _tensor_type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        return Stored(type_, value.blobFileValue.fileName, value.blobFileValue.offset)
    immediate = value.immediateValue
    match immediate.WhichOneof("value"):
        case "tensor":
            return Immediate(type_, _tensor(package, type_, immediate.tensor))
        case "list":
            members = [_constant(package, member) for member in immediate.list.values]
            return Immediate(type_, tuple(m.value for m in members if isinstance(m, Immediate)))
        case other:
            raise PackageError(f"{package}: a constant of kind {other} cannot be read")


def _tensor(package: Path, type_: TensorType, tensor: Any) -> np.ndarray | str:
    """MIL keeps 8-bit integers and Float16 as raw little-endian bytes, everything else as protobuf lists."""
    kind = tensor.WhichOneof("value")
    values = getattr(tensor, kind).values
    if type_.dtype == "string":
        return str(values[0]) if type_.shape == () else np.array(list(values)).reshape(type_.fixed_shape)
    if type_.dtype not in _MIL_TO_NUMPY:
        raise PackageError(f"{package}: a constant of element type {type_.dtype} cannot be read yet")
    dtype, shape = np.dtype(_MIL_TO_NUMPY[type_.dtype]), type_.fixed_shape
    flat = np.frombuffer(values, dtype.newbyteorder("<")) if kind == "bytes" else np.array(list(values))
    return flat.astype(dtype).reshape(shape)
