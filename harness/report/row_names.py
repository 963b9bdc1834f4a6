"""Rows by a name that people type, such as "mobilenet_v2, Unstructured Sparsity 50%"."""

from collections.abc import Sequence

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.report.config_rows import ConfigRow

_SHOWN = 12


def find_row(rows: Sequence[ConfigRow], text: str, suite: str | None = None) -> ConfigRow:
    """The row that `text` names: its network, algorithm and config, or as much of that as tells it from the others.

    Parts are separated by commas, in any order, without regard to capitals; a network and an algorithm go by their
    identifier or their name in tables, and one that is written whole is no other, such as "resnet50" beside
    "resnet50_v2". suite: of this one alone. Raises BenchError that lists what there is.
    """
    there = [row for row in rows if row.packages and (suite is None or row.suite == suite)]
    parts = _parts(text)
    if not parts:
        raise BenchError(f"expected a row's name, such as {row_name(there[0])!r}" if there else "there is no row")
    whole = {name for row in there for name in _subjects(row)}
    found = [row for row in there if all(_has(row, part, whole=part in whole) for part in parts)]
    # With all of its config: "50%" is also part of "50%, BatchNorm re-estimated", and of "50%, .aimodel".
    exact = [row for row in found if row.first and set(_parts(row.first.config)) <= set(parts)]
    for candidates in (exact, found):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            suites = {row.suite for row in candidates}
            more = f"; or --suite: {', '.join(sorted(map(str, suites)))}" if len(suites) > 1 else ""
            raise BenchError(f"{text!r} is {len(candidates)} rows; say which: {_listed(candidates)}{more}")
    raise BenchError(f"no row {text!r}; there are {_listed(there)}" if there else "no row has a measured package")


def row_name(row: ConfigRow) -> str:
    """Such as "mobilenet_v2, SparseGPT, Unstructured Sparsity 50%"."""
    first = row.first
    assert first is not None, "a row without trials has no package"
    algorithm = "dense" if first.pruning.algorithm == "dense" else first.pruning.title
    return ", ".join(filter(None, (first.network.name, algorithm, first.config)))


def _has(row: ConfigRow, part: str, *, whole: bool) -> bool:
    """whole: it is the name of a network or an algorithm, and not a piece of a longer one."""
    assert row.first is not None, "a row without trials has no package"
    names = [*_subjects(row), *_parts(row.first.config)]
    return part in names if whole else any(part in name for name in names)


def _subjects(row: ConfigRow) -> list[str]:
    """The names of its network and its algorithm."""
    assert row.first is not None, "a row without trials has no package"
    pruning, network = row.first.pruning, row.first.network
    return [*map(_folded, (network.name, network.title, pruning.algorithm, pruning.title))]


def _parts(text: str) -> list[str]:
    return [part for part in map(_folded, text.split(",")) if part]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _listed(rows: Sequence[ConfigRow]) -> str:
    more = f" and {len(rows) - _SHOWN} more (`table` lists them)" if len(rows) > _SHOWN else ""
    return "; ".join(f'"{row_name(row)}"' for row in rows[:_SHOWN]) + more
