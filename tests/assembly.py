"""ML programs written operation by operation: what coremltools would not write, or would take minutes to."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.mlprogram.specification import new_specification

_OPSET = "CoreML8"
_PROTO_NAMES = {"fp16": "FLOAT16", "fp32": "FLOAT32"}
"""Where protobuf's name of an element type is not MIL's in capitals."""

Shape = Sequence[int | None]
Inner = tuple[Sequence[tuple[str, str, Shape]], Callable[["Writer"], Sequence[str]]]
"""A block: its inputs (name, element type, shape), and what writes it and returns the names of its results."""


class Writer:
    """Writes the operations of one block. An operation's arguments are names of values (`str`), numbers, arrays.

    Text is given as a tuple of one.
    """

    def __init__(self, block: Any) -> None:
        self._block = block

    def __call__(
        self,
        type_: str,
        name: str,
        shape: Shape,
        dtype: str = "fp32",
        /,
        *,
        blocks: Sequence[Inner] = (),
        **inputs: Any,
    ) -> str:
        """One operation with one output; returns its name."""
        self.several(type_, [(name, dtype, shape)], blocks=blocks, **inputs)
        return name

    def several(
        self, type_: str, outputs: Sequence[tuple[str, str, Shape]], *, blocks: Sequence[Inner] = (), **inputs: Any
    ) -> None:
        """One operation with these outputs: name, element type, shape."""
        operation = self._block.operations.add(type=type_)
        for parameter, given in inputs.items():
            for one in given if isinstance(given, list) else [given]:
                argument = operation.inputs[parameter].arguments.add()
                if isinstance(one, str):
                    argument.name = one
                else:
                    _constant(argument.value, one)
        for output in outputs:
            _named(operation.outputs.add(), *output)
        for arguments, write in blocks:
            block = operation.blocks.add()
            for one in arguments:
                _named(block.inputs.add(), *one)
            block.outputs.extend(write(Writer(block)))

    def stored(self, name: str, shape: Shape, dtype: str, offset: int) -> str:
        """A constant in weight.bin."""
        operation = self._block.operations.add(type="const")
        value = operation.attributes["val"]
        _declare(value.type, dtype, shape)
        value.blobFileValue.fileName, value.blobFileValue.offset = "@model_path/weights/weight.bin", offset
        _named(operation.outputs.add(), name, dtype, shape)
        return name


def assemble(
    path: Path,
    inputs: Mapping[str, Shape],
    write: Callable[[Writer], Sequence[str]],
    *,
    weights: bytes = b"",
    others: Mapping[str, Callable[[Writer], Sequence[str]]] | None = None,
) -> Path:
    """A package with Float32 `inputs`. `write` writes its function main and returns the names of that one's results.

    others: functions beside it, with the same inputs and results.
    """
    spec = new_specification()
    spec.specificationVersion = 9
    results: Sequence[str] = ()
    for function_name, write_function in {**(others or {}), "main": write}.items():
        function = spec.mlProgram.functions[function_name]
        function.opset = _OPSET
        for name, shape in inputs.items():
            _named(function.inputs.add(), name, "fp32", shape)
        block = function.block_specializations[_OPSET]
        results = write_function(Writer(block))
        block.outputs.extend(results)
    for name, shape in inputs.items():
        _described(spec.description.input.add(name=name), shape)
    for name in results:
        _described(spec.description.output.add(name=name), ())
    spec.mlProgram.version = 1
    folder = path / "Data/com.apple.CoreML"
    (folder / "weights").mkdir(parents=True)
    (folder / "model.mlmodel").write_bytes(spec.SerializeToString())
    (folder / "weights/weight.bin").write_bytes(weights)
    items = {
        "model": {"path": "com.apple.CoreML/model.mlmodel", "name": "model.mlmodel", "author": "com.apple.CoreML"},
        "weights": {"path": "com.apple.CoreML/weights", "name": "weights", "author": "com.apple.CoreML"},
    }
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": "model"}
    (path / "Manifest.json").write_text(json.dumps(manifest))
    return path


def weight_file(array: np.ndarray, type_code: int) -> bytes:
    """weight.bin with one blob, at offset 64."""
    header = np.array([1, 2], "<u4").tobytes().ljust(64, b"\0")
    metadata = np.array([0xDEADBEEF, type_code], "<u4").tobytes() + np.array([array.nbytes, 128], "<u8").tobytes()
    return header + metadata.ljust(64, b"\0") + array.tobytes()


def _described(feature: Any, shape: Shape) -> None:
    array = feature.type.multiArrayType
    array.dataType = array.ArrayDataType.Value("FLOAT32")
    array.shape.extend(shape)


def _named(named: Any, name: str, dtype: str, shape: Shape) -> None:
    named.name = name
    _declare(named.type, dtype, shape)


def _declare(type_: Any, dtype: str, shape: Shape) -> None:
    tensor = type_.tensorType
    number = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_name
    tensor.dataType = number[_PROTO_NAMES.get(dtype, dtype.upper())].number
    tensor.rank = len(shape)
    for size in shape:
        dimension = tensor.dimensions.add()
        if size is None:
            dimension.unknown.variadic = False
        else:
            dimension.constant.size = size


def _constant(value: Any, given: Any) -> None:
    if isinstance(given, tuple):
        _declare(value.type, "string", ())
        value.immediateValue.tensor.strings.values.extend(given)
        return
    array = np.asarray(given)
    dtype, field = {"f": ("fp32", "floats"), "i": ("int32", "ints"), "b": ("bool", "bools")}[array.dtype.kind]
    _declare(value.type, dtype, array.shape)
    getattr(value.immediateValue.tensor, field).values.extend(array.reshape(-1).tolist())
