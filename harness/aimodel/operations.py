"""The operations of an unpacked graph, as those of a `Program`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.aimodel.complex_numbers import Pairs
from coreml_prune_bench.aimodel.constants import ELEMENT_TYPES, SPLAT, elements
from coreml_prune_bench.aimodel.dialect import operands, short_name
from coreml_prune_bench.aimodel.process import DAMAGED
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.budget import BYTES_PER_BYTE, FREE_BYTES
from coreml_prune_bench.mlprogram.features import check_name, check_size
from coreml_prune_bench.mlprogram.program import Block, Operation
from coreml_prune_bench.mlprogram.values import (
    Constant,
    Immediate,
    NamedType,
    Reference,
    Stored,
    TensorType,
    numpy_name,
)

PREFIX = "coreai."
VALUES = "_values"
"""What this project calls the constant with the stored values of a compressed weight, after the weight's own name."""

_IN_PLACE_BYTES = 64
"""Of a constant that is read at once: axes, strides, single numbers."""
_MOST_OPERATIONS = 100_000
_MOST_DEPTH = 40
_AS_32_BITS = {"int64": "int32", "uint64": "int32", "uint32": "int32"}
_LIMITS = np.iinfo(np.int32)


class Writer:
    """`write` appends a graph's operations, those of the graphs that it invokes in their place."""

    def __init__(
        self, package: Path, graphs: Mapping[str, Any], stored: np.ndarray, weight_names: Mapping[str, Any]
    ) -> None:
        self.operations: list[Operation] = []
        self._package = package
        self._graphs = graphs
        self._stored = stored
        self._weight_names = weight_names
        self._taken: dict[str, int] = {}
        self._made = 0
        self._read_operations = 0
        self._splat_bytes = FREE_BYTES + BYTES_PER_BYTE * stored.size
        self._constants = 0
        self._names: dict[int, str] = {}
        self._sparse: dict[str, tuple[str, str]] = {}
        self._pairs = Pairs(package)
        self._arrays: dict[str, np.ndarray] = {}
        self._types: dict[str, TensorType] = {}

    def arguments(self, graph: Mapping[str, Any]) -> list[NamedType]:
        """The inputs by the names that a caller has for them."""
        declared = [*graph["input_names"], *[None] * len(graph["inputs"])]
        return [
            NamedType(self._free(name or f"input_{position}"), _type(entry))
            for position, (entry, name) in enumerate(zip(graph["inputs"], declared, strict=False))
        ]

    def write(self, graph: Mapping[str, Any], given: Sequence[str]) -> None:
        self._names = {}
        self._written(graph, given, self.operations, self._names, 0)

    def results(self, graph: Mapping[str, Any]) -> list[tuple[NamedType, str]]:
        """What the graph that was written returns, under its own names, and the element type that the file says."""
        types = {entry["value"]: entry for op in graph["operations"] for entry in op["out"]}
        types |= {entry["value"]: entry for entry in graph["inputs"]}
        declared = [*graph["result_names"], *[None] * len(graph["results"])]
        found = []
        for position, (value, name) in enumerate(zip(graph["results"], declared, strict=False)):
            result = NamedType(self._free(name or f"output_{position}"), _type(types[value]))
            self._append(self.operations, "identity", {"x": (Reference(self._names[value]),)}, (result,))
            found.append((result, str(types[value]["type"])))
        return found

    # --- a graph, a block

    def _written(
        self,
        graph: Mapping[str, Any],
        given: Sequence[str],
        to: list[Operation],
        names: dict[int, str],
        depth: int,
    ) -> list[str]:
        """The operations of a graph or region, and the names of what it returns.

        names: of the values of the graph so far, which have a number each; those of the region are added.
        """
        if depth > _MOST_DEPTH:
            raise PackageError(f"{self._package}: its graphs invoke each other deeper than {_MOST_DEPTH}")
        names.update(zip((entry["value"] for entry in graph["inputs"]), given, strict=True))
        for op in graph["operations"]:
            values = [names[value] for value in op["in"]]
            names.update(zip((e["value"] for e in op["out"]), self._one(op, values, to, names, depth), strict=True))
        return [names[value] for value in graph["results"]]

    def _one(
        self, op: Mapping[str, Any], values: list[str], to: list[Operation], names: dict[int, str], depth: int
    ) -> list[str]:
        """Append one operation; the names of its results."""
        self._read_operations += 1
        if self._read_operations > _MOST_OPERATIONS:  # those that make none, too: graphs can invoke each other for ever
            raise PackageError(f"{self._package}: its graphs have more than {_MOST_OPERATIONS:,} operations")
        name = short_name(op["op"])
        if name == "invoke":
            callee = op["attributes"].get("callee")
            if callee not in self._graphs:
                raise PackageError(f"{self._package}: it invokes a graph {callee!r} that is not there")
            return self._written(self._graphs[callee], values, to, {}, depth + 1)
        if name == "constant":
            return [self._constant(op, to, outermost=depth == 0)]
        stored = self._compressed(name, op, values, to)
        if stored is not None:
            return stored
        paired = self._pairs.written(
            name,
            op,
            values,
            write=lambda kind, given, as_real: self._plain(kind, as_real, given, to, names, depth),
            zeros=lambda entry: self._zeros(entry, to),
            free=self._free,
        )
        return self._plain(name, op, values, to, names, depth) if paired is None else paired

    def _plain(
        self,
        name: str,
        op: Mapping[str, Any],
        values: Sequence[str],
        to: list[Operation],
        names: dict[int, str],
        depth: int,
    ) -> list[str]:
        outputs = tuple(NamedType(self._free(f"{name}_{self._next()}"), _type(entry)) for entry in op["out"])
        given = {parameter: tuple(map(Reference, vs)) for parameter, vs in operands(name, values).items()}
        attributes = {key: _immediate(value) for key, value in op["attributes"].items()}
        blocks = tuple(self._block(region, names, depth) for region in op.get("regions", ()))
        self._append(to, PREFIX + name, given, outputs, attributes, blocks)
        return [output.name for output in outputs]

    def _block(self, region: Mapping[str, Any], names: dict[int, str], depth: int) -> Block:
        inputs = [NamedType(self._free(f"argument_{self._next()}"), _type(entry)) for entry in region["inputs"]]
        inner: list[Operation] = []
        results = self._written(region, [value.name for value in inputs], inner, names, depth + 1)
        return Block(tuple(inputs), tuple(inner), tuple(results))

    # --- what is stored

    def _constant(self, op: Mapping[str, Any], to: list[Operation], *, outermost: bool) -> str:
        """outermost: in the function itself, whose constants have numbers by which this project names weights."""
        (entry,) = op["out"]
        number = self._constants if outermost else None
        self._constants += outermost
        stored = op["constant"]
        if "other" in stored:
            raise PackageError(f"{self._package}: a constant is {stored['other']}, not a tensor of numbers")
        unnamed = f"inner_{self._next()}" if number is None else f"constant_{number}"
        name = self._free(str(self._weight_names.get(str(number)) or unnamed))
        type_ = _type(entry, as_stored=True)
        if type_.dtype not in ELEMENT_TYPES.values():
            raise PackageError(
                f"{self._package}: constant {name!r} has element type {type_.dtype}, which cannot be read yet"
            )
        at, size = int(stored["at"]), int(stored["bytes"])
        value: Constant
        splat = bool(stored.get("splat"))
        if splat and type_.dtype.startswith("fp") and sum(size > 1 for size in type_.fixed_shape) > 1:
            self._take_splat(type_)
            value = Stored(type_, SPLAT, at, name)  # a weight whose elements are equal is one, too
        elif splat or size <= _IN_PLACE_BYTES or type_.dtype in _AS_32_BITS:
            value = self._read(type_, at, size, splat=splat)
            self._arrays[name] = np.asarray(value.value)
        else:
            value = Stored(type_, "", at, name)
        self._append(to, "const", {}, (NamedType(name, value.type),), {"val": value})
        return name

    def _zeros(self, entry: Mapping[str, Any], to: list[Operation]) -> str:
        type_ = _type(entry)
        name = self._free("zeros")
        zeros = np.broadcast_to(np.zeros((), numpy_name(type_.dtype)), type_.fixed_shape)
        self._append(to, "const", {}, (NamedType(name, type_),), {"val": Immediate(type_, zeros)})
        return name

    def _read(self, type_: TensorType, at: int, size: int, *, splat: bool) -> Immediate:
        """Integers of more than 32 bits as the nearest of 32: the end of a slice is often the largest there is."""
        data = self._stored[at : at + size]
        count = TensorType(type_.dtype, (1,)) if splat else type_
        array = elements(data, count)
        if type_.dtype in _AS_32_BITS:
            array = np.clip(array, _LIMITS.min if array.dtype.kind == "i" else 0, _LIMITS.max).astype(np.int32)
        if splat:
            self._take_splat(type_)
            array = np.broadcast_to(array.reshape(()), type_.fixed_shape)
        return Immediate(TensorType(_AS_32_BITS.get(type_.dtype, type_.dtype), type_.shape), array)

    def _take_splat(self, type_: TensorType) -> None:
        self._splat_bytes -= 4 * math.prod(type_.fixed_shape)
        if self._splat_bytes < 0:
            raise PackageError(f"{self._package}: its constants that repeat one number are too large; {DAMAGED}")

    def _compressed(self, name: str, op: Mapping[str, Any], values: list[str], to: list[Operation]) -> list[str] | None:
        """The names of a decompression's results; None where the operation is none."""
        if name == "build_sparse_with_bitmask":
            made = self._free(f"sparse_{self._next()}")
            self._sparse[made] = (values[0], values[1])
            return [made]
        if name == "sparse_with_bitmask_to_dense" and values[0] in self._sparse:
            kept, mask = self._sparse[values[0]]
            return self._constexpr(to, "sparse_to_dense", {"nonzero_data": kept, "mask": mask}, op, rename=kept)
        if name == "lut_to_sparse_with_bitmask" and values[0] in self._sparse:
            kept, mask = self._sparse[values[0]]
            given = {"indices_mask": mask, "indices_nonzero_data": kept, "lut": values[1], "vector_axis": values[2]}
            base = self._free(f"sparse_{self._next()}")
            vector = self._types[values[1]].fixed_shape[-1:]
            count = math.prod((*self._types[kept].fixed_shape, *vector))
            (entry,) = op["out"]
            outputs = (
                NamedType(self._free(f"{base}_mask"), TensorType("uint1", tuple(entry["shape"]))),
                NamedType(self._free(f"{base}_values"), TensorType(_type(entry).dtype, (count,))),
            )
            references = {parameter: (Reference(value),) for parameter, value in given.items()}
            self._append(to, "constexpr_lut_to_sparse", references, outputs)
            self._sparse[base] = (outputs[1].name, outputs[0].name)
            return [base]
        if name == "lut_to_dense":
            given = dict(zip(("indices", "lut", "vector_axis"), values, strict=True))
            return self._constexpr(to, "lut_to_dense", given, op, rename=values[0])
        if name == "blockwise_shift_scale" and self._is_zero(values[3]):
            given = dict(zip(("data", "scale", "offset"), values, strict=False))
            return self._constexpr(to, "blockwise_shift_scale", given, op, rename=values[0])
        return None

    def _constexpr(
        self, to: list[Operation], kind: str, given: Mapping[str, str], op: Mapping[str, Any], rename: str
    ) -> list[str]:
        """rename: the constant whose name the weight takes, if this project has named it."""
        (entry,) = op["out"]
        named = rename.endswith(VALUES) and rename in self._weight_names.values()
        name = rename.removesuffix(VALUES) if named else f"{kind.removesuffix('_to_dense')}_{self._next()}"
        output = NamedType(self._free(name), _type(entry))
        self._append(to, f"constexpr_{kind}", {key: (Reference(value),) for key, value in given.items()}, (output,))
        return [output.name]

    def _is_zero(self, name: str) -> bool:
        return name in self._arrays and not self._arrays[name].any()

    # --- names

    def _append(
        self,
        to: list[Operation],
        kind: str,
        given: Mapping[str, Any],
        outputs: tuple[NamedType, ...],
        attributes: Mapping[str, Constant] | None = None,
        blocks: tuple[Block, ...] = (),
    ) -> None:
        if self._made > _MOST_OPERATIONS:
            raise PackageError(f"{self._package}: its graphs have more than {_MOST_OPERATIONS:,} operations")
        self._made += 1
        self._types.update((output.name, output.type) for output in outputs)
        name = outputs[0].name if outputs else kind
        to.append(Operation(kind, name, given, attributes or {}, outputs, blocks))

    def _next(self) -> int:
        self._made += 1
        if self._made > 2 * _MOST_OPERATIONS:
            raise PackageError(f"{self._package}: its graphs have more than {_MOST_OPERATIONS:,} operations")
        return self._made

    def _free(self, name: str) -> str:
        """The name, with a number where it is taken. A slash would be one of the translation's own names."""
        name = name.replace("/", "_")
        check_name(self._package, name)
        found = name
        while found in self._taken:
            self._taken[name] += 1
            found = f"{name}_{self._taken[name]}"
        self._taken[found] = 0
        return found


def _type(entry: Mapping[str, Any], *, as_stored: bool = False) -> TensorType:
    if "shape" not in entry:
        raise ValueError(f"a value is {entry['type']}, not a tensor of numbers")
    dtype = ELEMENT_TYPES.get(entry["type"], str(entry["type"]))
    shape = tuple(entry["shape"])
    check_size(shape)
    return TensorType(dtype if as_stored else _AS_32_BITS.get(dtype, dtype), shape)


def _immediate(value: Any) -> Immediate:
    if isinstance(value, str):
        return Immediate(TensorType("string", ()), value)
    dtype = "bool" if isinstance(value, bool) else "int32" if isinstance(value, int) else "fp32"
    return Immediate(TensorType(dtype, ()), np.array(value, numpy_name(dtype)))
