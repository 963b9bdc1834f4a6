"""Complex numbers, which no ML program has, as two values: the real part and the imaginary one.

Values of these are what operations of two real ones make; an operation on them becomes one on each part, or the few
that a product takes. A function's own inputs, results and constants are real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coreml_prune_bench.core.errors import UnsupportedOperationError

_MAKES, _REAL, _IMAGINARY = "create_complex", "real_part", "imaginary_part"
_EACH_PART = frozenset(
    {"add", "sub", "reduce_sum", "reduce_mean", "scan", "where", "concat", "split", "tile", "transpose", "reshape"}
    | {"slice", "slice_update", "reverse", "expand_dims", "shrink_dims", "broadcast_to", "broadcast_in_dims", "pad"}
    | {"gather_nd", "gather_along_axis", "scatter_nd", "scatter_along_axis", "sum_pool_2d", "sum_pool_3d"}
)
"""What is the same of both parts, each by itself."""

Written = Callable[[str, Sequence[str], Mapping[str, Any]], list[str]]
"""Write an operation by its short name, operands and what the file says of it; the names of its results."""


class Pairs:
    """The two parts of each complex value, by its name."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._parts: dict[str, tuple[str, str]] = {}

    def written(
        self,
        name: str,
        op: Mapping[str, Any],
        values: Sequence[str],
        *,
        write: Written,
        zeros: Callable[[Mapping[str, Any]], str],
        free: Callable[[str], str],
    ) -> list[str] | None:
        """The names of the results of an operation that complex numbers take part in; None where none do.

        zeros: a constant of that type and shape. free: a name that is free.

        Raises UnsupportedOperationError where the operation is not known of them.
        """
        if name == _MAKES:
            return [self._made(free, values[0], values[1])]
        if name == "cast" and _is_complex(op["out"][0]) and values[0] not in self._parts:
            entry = {**op["out"][0], "type": _real_type(op["out"][0]["type"])}
            (real,) = write("cast", values, {**op, "out": [entry]})
            return [self._made(free, real, zeros(entry))]
        if not any(value in self._parts for value in values):
            return None
        if name in (_REAL, _IMAGINARY):
            return [self._parts[values[0]][name == _IMAGINARY]]
        as_real = {**op, "out": [{**entry, "type": _real_type(entry["type"])} for entry in op["out"]]}
        if name in _EACH_PART:
            parts = [write(name, [self._parts.get(v, (v, v))[i] for v in values], as_real) for i in (0, 1)]
            return [self._made(free, *pair) for pair in zip(*parts, strict=True)]
        if name == "mul":
            (a, b), (c, d) = (self._parts.get(value, (value, "")) for value in values)
            ac, bd, ad, bc = (write("mul", pair, as_real)[0] for pair in ((a, c), (b, d), (a, d), (b, c)))
            return [self._made(free, write("sub", (ac, bd), as_real)[0], write("add", (ad, bc), as_real)[0])]
        raise UnsupportedOperationError(
            f"{self._package}: operation 'coreai.{name}' of complex numbers is not known here"
        )

    def _made(self, free: Callable[[str], str], real: str, imaginary: str) -> str:
        name = free("complex")
        self._parts[name] = (real, imaginary)
        return name


def _real_type(element: str) -> str:
    """Of `complex<f32>` f32; a real type as it is."""
    return element.removeprefix("complex<").removesuffix(">")


def _is_complex(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("type", "")).startswith("complex<")
