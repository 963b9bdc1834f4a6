"""Rows by a name that people type, such as "mobilenet_v2, Unstructured Sparsity 50%"."""

from collections.abc import Collection, Sequence

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.report.config_rows import ConfigRow

_SHOWN = 12


def find_row(rows: Sequence[ConfigRow], text: str, suite: str | None = None, *, for_package: bool = False) -> ConfigRow:
    """The row that `text` names: its network, algorithm and config, or as much of that as tells it from the others.

    Parts are separated by commas, in any order, without regard to capitals; a network and an algorithm go by their
    identifier or their name in tables, and one that is written whole is no other, such as "resnet50" beside
    "resnet50_v2". Rows that differ in nothing else are told by their data set, suite or images, each written whole.
    suite: of this one alone. for_package: of rows with the same packages any will do, and that of most images is taken.
    Raises BenchError that lists what there is.
    """
    there = [row for row in rows if row.packages and (suite is None or row.suite == suite)]
    parts = _parts(text)
    if not parts:
        raise BenchError(f"expected a row's name, such as {row_name(there[0])!r}" if there else "there is no row")
    whole = {name for row in there for name in _subjects(row)}
    besides = {part for row in there for name in _besides(row) for part in _parts(name)} - whole
    several: list[ConfigRow] = []
    for apart in (set[str](), besides):  # names come first: a suite may be called as a piece of a config is
        found = [row for row in there if all(_has(row, part, whole, apart) for part in parts)]
        # With all of its config: "50%" is also part of "50%, BatchNorm re-estimated", and of "50%, .aimodel".
        exact = [row for row in found if row.first and set(_parts(row.first.config)) <= set(parts)]
        candidates = exact or found
        if len(candidates) == 1 or (candidates and for_package and _have_the_same_packages(candidates)):
            return max(candidates, key=lambda row: len(row.labels))
        several = several or candidates
    if several:
        raise BenchError(f"{text!r} is {len(several)} rows; say which: {_listed(several)}")
    raise BenchError(f"no row {text!r}; there are {_listed(there)}" if there else "no row has a measured package")


def row_name(row: ConfigRow) -> str:
    """Such as "mobilenet_v2, SparseGPT, Unstructured Sparsity 50%"."""
    first = row.first
    assert first is not None, "a row without trials has no package"
    algorithm = "dense" if first.pruning.algorithm == "dense" else first.pruning.title
    return ", ".join(filter(None, (first.network.name, algorithm, first.config)))


def _has(row: ConfigRow, part: str, whole: Collection[str], besides: Collection[str]) -> bool:
    """whole: names of networks and algorithms, which are not a piece of a longer one. besides: of what else tells."""
    assert row.first is not None, "a row without trials has no package"
    if part in besides:
        return any(part in _parts(name) for name in _besides(row))
    names = [*_subjects(row), *_parts(row.first.config)]
    return part in names if part in whole else any(part in name for name in names)


def _have_the_same_packages(rows: Sequence[ConfigRow]) -> bool:
    """Whether each trial's package is one and the same in all of them."""
    packages = [{trial.trial: trial.package.sha256 for trial in row.measured if trial.package} for row in rows]
    return all(one == packages[0] for one in packages)


def _besides(row: ConfigRow) -> tuple[str, ...]:
    """What tells rows of one name from each other, what one looks at first in front.

    A folder's images are named by their content: one spelling can be of two folders.
    """
    assert row.first is not None, "a row without trials has no package"
    return row.first.data.spec, row.first.suite, f"images {row.first.data.fingerprint[:8]}"


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
    return "; ".join(f'"{name}"' for name in _distinct_names(rows)[:_SHOWN]) + more


def _distinct_names(rows: Sequence[ConfigRow]) -> list[str]:
    """The names of rows, with as much beside them as tells each from the others of its name."""
    names = [row_name(row) for row in rows]
    for beside in zip(*map(_besides, rows), strict=True):
        of = {name: {b for n, b in zip(names, beside, strict=True) if n == name} for name in names}
        names = [f"{name}, {b}" if len(of[name]) > 1 else name for name, b in zip(names, beside, strict=True)]
    return names
