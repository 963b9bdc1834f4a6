"""An ML program as text, as Core ML's compiler leaves it in a compiled model's `model.mil`.

It is for reading and for finding a weight's place in the file. Nothing is run from it, and nothing reads it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.mlprogram.program import Block, Operation, Program
from coreml_prune_bench.mlprogram.reader import read
from coreml_prune_bench.mlprogram.values import Argument, Constant, NamedType, Reference, Stored, TensorType

_INDENT = "    "
_FIRST_WITH_SCALARS = 8
"""Up to CoreML7 the text has no scalars, only tensors of rank 0."""


def program_text(package: Path) -> str:
    """All functions of the package. Raises PackageError where it holds no ML program."""
    first = read(package)
    functions = [first if name == first.function else read(package, name) for name in first.functions]
    version = "1.3" if any(_has_scalars(function) for function in functions) else "1.0"
    lines = [f"program({version})", "{"]
    for function in functions:
        lines.extend(_INDENT + line for line in _Writer(scalars=_has_scalars(function)).function(function))
    return "\n".join([*lines, "}", ""])


def _has_scalars(function: Program) -> bool:
    return int(function.opset.removeprefix("CoreML")) >= _FIRST_WITH_SCALARS


class _Writer:
    def __init__(self, *, scalars: bool) -> None:
        self._scalars = scalars

    def function(self, function: Program) -> Iterator[str]:
        ios = int(function.opset.removeprefix("CoreML")) + 10
        yield f"func {function.function}<ios{ios}>({self._named(function.arguments)}) {{"
        for operation in function.operations:
            yield from (_INDENT * 2 + line for line in self._operation(operation))
        yield f"{_INDENT}}} -> ({', '.join(function.results)});"

    def _operation(self, operation: Operation) -> Iterator[str]:
        inputs = ", ".join(f"{name} = {self._arguments(given)}" for name, given in sorted(operation.inputs.items()))
        attributes = self._attributes(operation.name, operation.attributes)
        call = f"{self._named(operation.outputs)} = {operation.type}({inputs})[{attributes}]"
        if not operation.blocks:
            yield f"{call};"
            return
        yield call
        for position, block in enumerate(operation.blocks):
            yield from (_INDENT + line for line in self._block(f"{operation.name}_block{position}", block))
        yield ";"

    def _block(self, name: str, block: Block) -> Iterator[str]:
        yield f"({name})({self._named(block.inputs)}) {{"
        for operation in block.operations:
            yield from (_INDENT + line for line in self._operation(operation))
        yield f"}} -> ({', '.join(block.results)})"

    def _attributes(self, name: str, attributes: Mapping[str, Constant]) -> str:
        text = {key: self._constant(value) for key, value in attributes.items()}
        named = f"name = {self._value(TensorType('string', ()), name)}"
        return ", ".join([named, *(f"{key} = {value}" for key, value in sorted(text.items()))])

    def _arguments(self, arguments: tuple[Argument, ...]) -> str:
        texts = [
            argument.name if isinstance(argument, Reference) else self._constant(argument) for argument in arguments
        ]
        return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"

    def _named(self, values: Iterable[NamedType]) -> str:
        return ", ".join(f"{self._type(value.type)} {value.name}" for value in values)

    def _type(self, type_: TensorType) -> str:
        if type_.kind == "dictionary":
            return "dict"
        sizes = ", ".join("?" if size is None else str(size) for size in type_.shape) if type_.rank_known else "..."
        scalar = self._scalars and type_.rank_known and not type_.shape
        text = type_.dtype if scalar else f"tensor<{type_.dtype}, [{sizes}]>"
        match type_.kind:
            case "state":
                return f"state<{text}>"
            case "list":
                return f"list<{text}, {'?' if type_.length is None else type_.length}>"
        return text

    def _constant(self, constant: Constant) -> str:
        if not isinstance(constant, Stored):
            return self._value(constant.type, constant.value)
        path = self._value(TensorType("string", ()), constant.file)
        offset = self._value(TensorType("uint64", ()), np.asarray(constant.offset))
        return f"{self._type(constant.type)}(BLOBFILE(path = {path}, offset = {offset}))"

    def _value(self, type_: TensorType, value: Any) -> str:
        return f"{self._type(type_)}({_literal(value)})"


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, np.ndarray):
        return _element(value[()]) if value.ndim == 0 else f"[{', '.join(map(_literal, value))}]"
    return _element(value)


def _element(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        return _hexadecimal(float(value))
    return str(value)


def _hexadecimal(value: float) -> str:
    """As C's %a writes it: no trailing zeros."""
    if not np.isfinite(value):
        return str(value)
    mantissa, exponent = value.hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}p{exponent}"
