"""Programs of Core AI that are written by hand, as the reader's process tells them: no package of Apple's is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coreml_prune_bench.aimodel import reader
from coreml_prune_bench.aimodel.unpack import CONSTANTS
from coreml_prune_bench.runtimes.portable import load
from coreml_prune_bench.runtimes.portable.session import Model

_ELEMENTS = {"float32": "f32", "float16": "f16", "bool": "i1", "int8": "si8", "uint8": "ui8", "int32": "si32"}
_ELEMENTS |= {"uint32": "ui32", "int64": "si64"}

Type = tuple[str, Sequence[int | None]]
"""MLIR's element type, and the shape."""


def type_of(array: np.ndarray) -> Type:
    return _ELEMENTS[array.dtype.name], array.shape


class Written:
    """A graph that is being written. Values are numbers."""

    def __init__(self) -> None:
        self._constants = bytearray()
        self._values = 0
        self._inputs: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._operations: list[dict[str, Any]] = []

    def input(self, name: str, type_: Type) -> int:
        self._inputs.append(self._new(type_))
        self._names.append(name)
        return self._values

    def constant(self, array: np.ndarray) -> int:
        self._constants += bytes(-len(self._constants) % 64)
        at = len(self._constants)
        self._constants += array.tobytes()
        made = {"op": "coreai.constant", "in": [], "out": [self._new(type_of(array))]}
        self._operations.append({**made, "constant": {"at": at, "bytes": array.nbytes}})
        return self._values

    def operation(
        self, name: str, values: Sequence[int], *outs: Type, regions: Sequence[Any] = (), **attributes: Any
    ) -> list[int]:
        out = [self._new(type_) for type_ in outs]
        given = {"op": f"coreai.{name}", "in": list(values), "out": out, "attributes": attributes}
        self._operations.append({**given, "regions": list(regions)} if regions else given)
        return [entry["value"] for entry in out]

    @contextmanager
    def region(self, *types: Type) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """What is written inside stands in the region, of these arguments; its results are for the caller to add."""
        entries, around, inside = [self._new(type_) for type_ in types], self._operations, list[dict[str, Any]]()
        self._operations = inside
        region: dict[str, Any] = {"inputs": entries, "operations": inside, "results": []}
        yield region, [entry["value"] for entry in entries]
        self._operations = around

    def load(self, folder: Path, results: Sequence[int]) -> Model:
        """The function as the portable runtime has it; its results are called y0, y1 and so on."""
        graph = {
            "name": "main",
            "private": False,
            "inputs": self._inputs,
            "input_names": self._names,
            "operations": self._operations,
            "results": list(results),
            "result_names": [f"y{position}" for position in range(len(results))],
        }
        package = folder / "m.aimodel"
        package.mkdir()
        (package / reader.BYTECODE).touch()

        def unpacked(package: Path, bytecode: Path, into: Path) -> dict[str, Any]:
            (into / CONSTANTS).write_bytes(self._constants)
            return {"graphs": [graph]}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader, "unpacked", unpacked)
            return load(package, threads=1, cache=False)

    def _new(self, type_: Type) -> dict[str, Any]:
        self._values += 1
        return {"value": self._values, "type": type_[0], "shape": list(type_[1])}
