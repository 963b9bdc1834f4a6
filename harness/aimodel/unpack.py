"""In a process of its own: a `.aimodel`'s program as JSON and its constants as one file, with Apple's own reader.

    python -m coreml_prune_bench.aimodel.unpack PACKAGE/main.mlirb FOLDER

FOLDER/program.json   the graphs, their operations in order, and where each constant stands
FOLDER/constants.bin  the constants' elements, as they are in memory

Apple's reader is native code: what a damaged file makes it do ends with this process, whose memory and time the caller
bounds. What it cannot read is told on standard error, and the exit code is 3. Nothing is computed here, and nothing of
the project imported.
"""

import json
import math
import re
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

PROGRAM, CONSTANTS = "program.json", "constants.bin"
ILLEGIBLE = 3

WITH_REGIONS = frozenset({"coreai.if", "coreai.while", "coreai.reduce", "coreai.reduce_index"})
"""Operations that are what their regions compute; another's region only spells out what its name says."""

_CALLEE = re.compile(r'@"?([^">]+)"?>')
_ALIGNMENT = 64
_MOST_TEXT = 400
_MOST_DEPTH = 40


def main(source: str, folder: str, memory_bytes: str) -> None:
    limit = int(memory_bytes)
    if sys.platform != "darwin":  # which knows the limit and keeps none
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from coreai.authoring.context import Context

    try:
        unpacked = Unpacked(Path(source), Path(folder), Context()._mlir_context)
        (Path(folder) / PROGRAM).write_text(json.dumps(unpacked.graphs()))
    except (RuntimeError, ValueError, TypeError, LookupError, MemoryError, RecursionError) as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())[:_MOST_TEXT]}\n")
        sys.exit(ILLEGIBLE)


class Unpacked:
    """A module of MLIR that is being written down. Values are numbers, in the order in which they are met."""

    def __init__(self, source: Path, folder: Path, context: Any) -> None:
        from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import load_module_from_bytecode

        self._source_bytes = source.stat().st_size
        self._module = load_module_from_bytecode(context=context, path=source)
        self._constants = folder / CONSTANTS
        self._placed: dict[str, dict[str, Any]] = {}

    def graphs(self) -> dict[str, Any]:
        with self._constants.open("wb") as file:
            return {"graphs": [self._graph(op, file) for op in self._module.body.operations]}

    def _graph(self, op: Any, file: BinaryIO) -> dict[str, Any]:
        if op.operation.name != "coreai.graph":
            return {"name": None, "kind": op.operation.name}
        attributes = {named.name: named.attr for named in op.operation.attributes}
        written = self._region(op.operation.regions[0], {}, file, 0)
        return {
            "name": _text(attributes["sym_name"]),
            "kind": "coreai.graph",
            "private": "priv" in attributes,
            "composite": _composite(attributes.get("composite_decl")),
            "input_names": _names(attributes.get("arg_attrs")),
            "result_names": _names(attributes.get("res_attrs")),
            **written,
        }

    def _region(self, region: Any, seen: dict[Any, int], file: BinaryIO, depth: int) -> dict[str, Any]:
        if depth > _MOST_DEPTH:
            raise ValueError("its branches and loops are nested too deep")
        blocks = list(region.blocks)
        if len(blocks) != 1:
            raise ValueError(f"a region has {len(blocks)} blocks, expected one")
        numbers = dict(seen)
        self._offset = max(getattr(self, "_offset", 0), len(numbers))
        inputs = [self._new(value, numbers) for value in blocks[0].arguments]
        operations: list[dict[str, Any]] = []
        results: list[int] = []
        for op in blocks[0].operations:
            operation = op.operation
            taken = [numbers[value] for value in operation.operands]
            if operation.name in ("coreai.output", "coreai.yield", "coreai.condition"):
                results = taken
                continue
            written: dict[str, Any] = {"op": operation.name, "in": taken}
            if operation.name == "coreai.constant":
                written["constant"] = self._constant(op, file)
            else:
                written["attributes"] = _attributes(operation)
            if operation.name in WITH_REGIONS:
                written["regions"] = [self._region(inner, numbers, file, depth + 1) for inner in operation.regions]
            written["out"] = [self._new(value, numbers) for value in operation.results]
            operations.append(written)
        return {"inputs": inputs, "operations": operations, "results": results}

    def _new(self, value: Any, numbers: dict[Any, int]) -> dict[str, Any]:
        self._offset += 1
        numbers[value] = self._offset
        return {"value": self._offset, **_type(value.type)}

    def _constant(self, op: Any, file: BinaryIO) -> dict[str, Any]:
        """Where the constant's elements stand in the file; of a splat, one of them."""
        from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import copy_constant_value_to_array
        from coreai._compiler.ir import DenseElementsAttr, DenseResourceElementsAttr, RankedTensorType

        value, type_ = op.operation.attributes["value"], op.operation.results[0].type
        if not RankedTensorType.isinstance(type_):
            return {"other": str(type_)[:_MOST_TEXT]}
        if DenseElementsAttr.isinstance(value) and DenseElementsAttr(value).is_splat:
            element = np.array(DenseElementsAttr(value)).reshape(-1)[:1]
            return {**self._written(element.tobytes(), file), "splat": True}
        key = str(value) if DenseResourceElementsAttr.isinstance(value) else ""
        if key not in self._placed or not key:
            size = math.ceil(math.prod(RankedTensorType(type_).shape) * _bits(type_) / 8)
            if not 0 <= size <= self._source_bytes:
                raise ValueError(f"a constant of {size} bytes is said to be in a file of {self._source_bytes}")
            elements = np.zeros(size, np.uint8)
            if key:
                copy_constant_value_to_array(constant_op=op, destination=elements)
            else:
                elements = np.array(DenseElementsAttr(value)).reshape(-1).view(np.uint8)
            placed = self._written(elements.tobytes(), file)
            if not key:
                return placed
            self._placed[key] = placed
        return self._placed[key]

    def _written(self, elements: bytes, file: BinaryIO) -> dict[str, Any]:
        file.write(bytes(-file.tell() % _ALIGNMENT))
        at = file.tell()
        file.write(elements)
        return {"at": at, "bytes": len(elements)}


def _type(type_: Any) -> dict[str, Any]:
    from coreai._compiler.ir import RankedTensorType, ShapedType

    if not RankedTensorType.isinstance(type_):
        return {"type": str(type_)[:_MOST_TEXT]}
    ranked = RankedTensorType(type_)
    dynamic = ShapedType.get_dynamic_size()
    shape = [None if size == dynamic else size for size in ranked.shape]
    return {"type": str(ranked.element_type)[:_MOST_TEXT], "shape": shape}


def _bits(type_: Any) -> int:
    """Bits of an element, from its name: f16, si32, ui1, i1, f8E4M3FN. An i1 has a byte of its own."""
    name = _type(type_)["type"]
    if name == "i1":
        return 8
    found = re.match(r"(?:[us]?i|b?f)(\d+)", name) or re.match(r"complex<f(\d+)>", name)
    if not found:
        raise ValueError(f"a constant has element type {name}")
    return int(found[1]) * (2 if name.startswith("complex") else 1)


def _attributes(operation: Any) -> dict[str, Any]:
    from coreai._compiler.ir import BoolAttr, FloatAttr, IntegerAttr, StringAttr

    found: dict[str, Any] = {}
    for named in operation.attributes:
        attribute = named.attr
        if BoolAttr.isinstance(attribute):
            found[named.name] = BoolAttr(attribute).value
        elif IntegerAttr.isinstance(attribute):
            found[named.name] = IntegerAttr(attribute).value
        elif FloatAttr.isinstance(attribute):
            found[named.name] = FloatAttr(attribute).value
        elif StringAttr.isinstance(attribute):
            found[named.name] = StringAttr(attribute).value[:_MOST_TEXT]
        elif named.name == "callee":
            callee = _CALLEE.search(str(attribute))
            found["callee"] = callee[1] if callee else str(attribute)[:_MOST_TEXT]
        else:
            # "#coreai.padding_mode<constant>"
            found[named.name] = str(attribute)[:_MOST_TEXT].rpartition("<")[2].rstrip(">")
    return found


def _text(attribute: Any) -> str:
    from coreai._compiler.ir import StringAttr

    return StringAttr(attribute).value


def _composite(declaration: Any) -> str | None:
    """Of `#coreai.composite_declaration<"hard_sigmoid" = {...}>` the name."""
    found = re.search(r'<"([^"]*)"', str(declaration)[:_MOST_TEXT]) if declaration is not None else None
    return found[1] if found else None


def _names(attributes: Any) -> list[str | None]:
    """The coreai.name of each argument or result, from `[{coreai.name = "x"}, {}]`."""
    from coreai._compiler.ir import ArrayAttr, DictAttr

    if attributes is None:
        return []
    found: list[str | None] = []
    for entry in ArrayAttr(attributes):
        named = DictAttr(entry)
        found.append(_text(named["coreai.name"]) if "coreai.name" in named else None)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
