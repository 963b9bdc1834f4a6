"""In a process of its own: a `.aimodel`'s program as JSON and its constants as one file, with Apple's own reader.

    python unpack.py PACKAGE/main.mlirb FOLDER MEMORY_BYTES PROCESSOR_S FILE_BYTES

FOLDER/program.json   the graphs, their operations in order, and where each constant stands
FOLDER/constants.bin  the constants' elements, as they are in memory

Apple's reader is native code: what a damaged file makes it do ends with this process, which bounds its own memory, its
processor's time and the size of each file that it writes. What it cannot read is told on standard error, and the exit
code is 3. Nothing is computed here, and nothing of the project imported.
"""

import json
import math
import os
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
_MOST_OPERATIONS = 100_000
"""As of an ML program."""


def main(source: str, folder: str, memory_bytes: str, processor_s: str, file_bytes: str) -> None:
    _limit(int(memory_bytes), int(processor_s), int(file_bytes))
    from coreai._compiler._mlir_libs import _mlir
    from coreai._compiler.context import Context

    # Operations are asked for names, operands and attributes alone; a class for each takes half a second to import.
    _mlir.globals.dialect_search_modules = []
    context = Context()._mlir_context
    context.enable_multithreading(False)  # a thread for each processor takes address space, which is limited
    try:
        unpacked = Unpacked(Path(source), Path(folder), context)
        (Path(folder) / PROGRAM).write_text(json.dumps(unpacked.graphs()))
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())[:_MOST_TEXT]}\n")
        sys.stderr.flush()
        os._exit(ILLEGIBLE)  # without taking down what a damaged program has left half made


def _limit(memory_bytes: int, processor_s: int, file_bytes: int) -> None:
    limits = {resource.RLIMIT_CPU: processor_s, resource.RLIMIT_FSIZE: file_bytes, resource.RLIMIT_CORE: 0}
    if sys.platform != "darwin":  # which knows the limit and keeps none
        limits[resource.RLIMIT_AS] = memory_bytes
    for limit, most in limits.items():
        allowed = resource.getrlimit(limit)[1]
        least = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(limit, (least, allowed))


class Unpacked:
    """A module of MLIR that is being written down. Values are numbers, in the order in which they are met."""

    def __init__(self, source: Path, folder: Path, context: Any) -> None:
        from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import load_module_from_bytecode

        self._source_bytes = source.stat().st_size
        self._module = load_module_from_bytecode(context=context, path=source)
        self._constants = folder / CONSTANTS
        self._placed: dict[Any, dict[str, Any]] = {}
        self._numbers: dict[Any, int] = {}
        self._operations = 0

    def graphs(self) -> dict[str, Any]:
        with self._constants.open("wb") as file:
            return {"graphs": [self._graph(op, file) for op in self._module.body.operations]}

    def _graph(self, op: Any, file: BinaryIO) -> dict[str, Any]:
        if op.operation.name != "coreai.graph":
            return {"name": None, "kind": op.operation.name}
        attributes = {named.name: named.attr for named in op.operation.attributes}
        written = self._region(op.operation.regions[0], file, 0)
        return {
            "name": _text(attributes["sym_name"]),
            "kind": "coreai.graph",
            "private": "priv" in attributes,
            "composite": _composite(attributes.get("composite_decl")),
            "input_names": _names(attributes.get("arg_attrs")),
            "result_names": _names(attributes.get("res_attrs")),
            **written,
        }

    def _region(self, region: Any, file: BinaryIO, depth: int) -> dict[str, Any]:
        if depth > _MOST_DEPTH:
            raise ValueError("its branches and loops are nested too deep")
        blocks = list(region.blocks)
        if len(blocks) != 1:
            raise ValueError(f"a region has {len(blocks)} blocks, expected one")
        inputs = [self._new(value) for value in blocks[0].arguments]
        operations: list[dict[str, Any]] = []
        results: list[int] = []
        for op in blocks[0].operations:
            operation = op.operation
            self._operations += 1
            if self._operations > _MOST_OPERATIONS:
                raise ValueError(f"its graphs have more than {_MOST_OPERATIONS:,} operations")
            taken = [self._numbers[value] for value in operation.operands]
            if operation.name in ("coreai.output", "coreai.yield", "coreai.condition"):
                results = taken
                continue
            written: dict[str, Any] = {"op": operation.name, "in": taken}
            if operation.name == "coreai.constant":
                written["constant"] = self._constant(op, file)
            else:
                written["attributes"] = _attributes(operation)
            if operation.name in WITH_REGIONS:
                written["regions"] = [self._region(inner, file, depth + 1) for inner in operation.regions]
            written["out"] = [self._new(value) for value in operation.results]
            operations.append(written)
        return {"inputs": inputs, "operations": operations, "results": results}

    def _new(self, value: Any) -> dict[str, Any]:
        self._numbers[value] = number = len(self._numbers) + 1
        return {"value": number, **_type(value.type)}

    def _constant(self, op: Any, file: BinaryIO) -> dict[str, Any]:
        """Where the constant's elements stand in the file; of a splat, one of them."""
        from coreai._compiler.ir import RankedTensorType

        value, type_ = op.operation.attributes["value"], op.operation.results[0].type
        if not RankedTensorType.isinstance(type_):
            return {"other": str(type_)[:_MOST_TEXT]}
        if value not in self._placed:  # many constants may be one attribute
            self._placed[value] = self._place(op, value, type_, file)
        return self._placed[value]

    def _place(self, op: Any, value: Any, type_: Any, file: BinaryIO) -> dict[str, Any]:
        from coreai._compiler._mlir_libs._coreaiIR._bindings.compiler import copy_constant_value_to_array
        from coreai._compiler.ir import DenseElementsAttr, RankedTensorType

        if DenseElementsAttr.isinstance(value) and DenseElementsAttr(value).is_splat:
            element = _element(DenseElementsAttr(value).get_splat_value(), _type(type_)["type"])
            return {**self._written(element, file), "splat": True}
        size = math.ceil(math.prod(RankedTensorType(type_).shape) * _bits(type_) / 8)
        if not 0 <= size <= 8 * self._source_bytes:  # truth values take a bit there, a byte here
            raise ValueError(f"a constant of {size} bytes is said to be in a file of {self._source_bytes}")
        elements = np.zeros(size, np.uint8)
        copy_constant_value_to_array(constant_op=op, destination=elements)
        return self._written(elements.tobytes(), file)

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
    if name == "index":
        return 64
    found = re.match(r"(?:[us]?i|b?f)(\d+)", name) or re.match(r"complex<f(\d+)>", name)
    if not found:
        raise ValueError(f"a constant has element type {name}")
    return int(found[1]) * (2 if name.startswith("complex") else 1)


def _element(value: Any, type_: str) -> bytes:
    """Of a splat the one element, as it stands in memory."""
    from coreai._compiler.ir import BoolAttr, FloatAttr, IntegerAttr

    if FloatAttr.isinstance(value):
        number = FloatAttr(value).value
        if type_ == "bf16":
            return np.float32(number).tobytes()[2:]
        return np.array(number, {"f16": np.float16, "f32": np.float32, "f64": np.float64}[type_]).tobytes()
    whole = int((BoolAttr if BoolAttr.isinstance(value) else IntegerAttr)(value).value)
    bits = 64 if type_ == "index" else int(re.sub(r"\D", "", type_))
    return (whole & ((1 << bits) - 1)).to_bytes(math.ceil(bits / 8), "little")


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
