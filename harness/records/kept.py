"""What this project keeps on disk: how much of each kind, and what of it may go.

In the cache folder, what can be made or fetched again; in a results folder, what runs left that were stopped. Finished
artifacts and records are results: they are counted, and never removed here. Nor is anything that a process uses.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from coreml_prune_bench.core.cache_folder import cache_folder, delete, is_used, remove
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.errors import did_you_mean
from coreml_prune_bench.records.store import lock_of

Goes = Literal["by default", "when named", "never"]

_CACHED: dict[str, tuple[str, Goes]] = {
    "images": ("images prepared for evaluation", "by default"),
    "portable": ("packages translated for the portable runtime", "by default"),
    "compiled": ("packages compiled by Core ML", "by default"),
    "modelrunner": ("apps that measure on an iPhone", "by default"),
    "digests": ("hashes of files, for as long as they do not change", "by default"),
    "results": ("copies of results at addresses", "when named"),
    "published": ("what fetch-published downloaded", "when named"),
}
_LOCKS = (".lock", ".lock.json")
"""Of processes at work, and the hashes of what was fetched first: neither is an entry of the cache."""

_PATIENCE_S = 10
_WRITTEN_S = 60
"""Longer than a record takes to be written: its unfinished file is then one of a run that was killed."""


@dataclass(frozen=True)
class Entry:
    """A file or folder. size_bytes: what it takes on the disk. used: by a process, this one or another, now."""

    path: Path
    size_bytes: int
    last_used_s: float
    used: bool


@dataclass(frozen=True)
class Kind:
    """What is kept of one kind. goes: whether `clear` removes it. remove: an entry that is not used; if it is gone."""

    name: str
    holds: str
    goes: Goes
    folder: Path
    entries: tuple[Entry, ...]
    remove: Callable[[Path], bool] = remove

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)


@dataclass(frozen=True)
class Cleared:
    """What went of one kind, and what stays although it was asked for, because it is used."""

    kind: str
    entries: int
    size_bytes: int
    used: int


def kinds(results: Path) -> list[Kind]:
    """All there are: those of the cache folder, then those of a results folder."""
    cached = [_cached(name, *about) for name, about in _CACHED.items()]
    artifacts = results / "artifacts"
    records = [results / name for name in ("records", "latency", "parity")]
    trained = [*artifacts.glob(".*.checkpoint"), *artifacts.glob(".cluster")]
    half = [*artifacts.glob(".*.tmp"), *(path for folder in records for path in folder.glob(".*.tmp"))]
    whole = [path for path in artifacts.glob("*") if not path.name.startswith(".")]
    told = [path for folder in records for path in folder.glob("*") if path not in half]
    return [
        *cached,
        _of_runs(
            "checkpoints", "states of trainings that were stopped, to go on from", "when named", artifacts, trained
        ),
        _of_runs("unfinished", "what killed runs left half written", "by default", results, half),
        _of_runs("artifacts", "packages and trained networks: results", "never", artifacts, whole),
        _of_runs("records", "what was measured, and records set aside: results", "never", results, told),
    ]


def clear(names: Sequence[str] | None, results: Path) -> list[Cleared]:
    """Remove what is kept of these kinds; None: of those that go by default.

    Raises BenchError for a kind that there is not, or that never goes.
    """
    found = {kind.name: kind for kind in kinds(results)}
    for name in names or ():
        if name not in found:
            raise BenchError(f"no kind {name!r}{did_you_mean(name, found)}; known: {', '.join(found)}")
        if found[name].goes == "never":
            raise BenchError(f"{name} are results, which this never removes: they are in {found[name].folder}")
    chosen = [found[name] for name in dict.fromkeys(names)] if names else _by_default(found.values())
    return [_cleared(kind, kind.entries) for kind in chosen]


def bound(most_bytes: int, results: Path) -> list[Cleared]:
    """Remove, of what goes by default of the cache folder, what was not used for longest, until the rest fits."""
    chosen = [kind for kind in _by_default(kinds(results)) if kind.name in _CACHED]
    beyond = sum(kind.size_bytes for kind in chosen) - most_bytes
    going: dict[str, list[Entry]] = {kind.name: [] for kind in chosen}
    for entry, kind in sorted(((e, k) for k in chosen for e in k.entries), key=lambda pair: pair[0].last_used_s):
        if beyond > 0:
            going[kind.name].append(entry)
            beyond -= 0 if entry.used else entry.size_bytes
    return [_cleared(kind, going[kind.name]) for kind in chosen]


def _by_default(found: Iterable[Kind]) -> list[Kind]:
    return [kind for kind in found if kind.goes == "by default"]


def _cleared(kind: Kind, entries: Sequence[Entry]) -> Cleared:
    gone: list[Entry] = []
    if entries and kind.name in _CACHED:
        # Held by who puts entries there or checks them: `fetch-published`, and the portable runtime for a moment.
        with suppress(Timeout), FileLock(kind.folder / ".lock", timeout=_PATIENCE_S):
            gone = [entry for entry in entries if kind.remove(entry.path)]
    else:
        gone = [entry for entry in entries if kind.remove(entry.path)]
    return Cleared(kind.name, len(gone), sum(entry.size_bytes for entry in gone), len(entries) - len(gone))


def _cached(name: str, holds: str, goes: Goes) -> Kind:
    folder = cache_folder() / name
    paths = [path for path in folder.glob("*") if not path.name.endswith(_LOCKS)]
    return Kind(name, holds, goes, folder, _entries(paths, is_used))


def _of_runs(name: str, holds: str, goes: Goes, folder: Path, paths: Iterable[Path]) -> Kind:
    is_at_work = _is_at_work if goes != "never" else lambda path: False
    return Kind(name, holds, goes, folder, _entries(paths, is_at_work), _remove_unfinished)


def _entries(paths: Iterable[Path], used: Callable[[Path], bool]) -> tuple[Entry, ...]:
    found = []
    for path in sorted(paths):
        with suppress(FileNotFoundError):  # gone meanwhile
            found.append(Entry(path, _size(path), path.lstat().st_mtime, used(path)))
    return tuple(found)


def _size(path: Path) -> int:
    """What a file, or all in a folder, takes on the disk: of a file with holes, its blocks alone."""
    size = path.lstat().st_blocks * 512
    if path.is_dir() and not path.is_symlink():
        with os.scandir(path) as inside:
            for entry in inside:
                with suppress(FileNotFoundError):
                    size += _size(Path(entry.path))
    return size


def _is_at_work(unfinished: Path) -> bool:
    """Whether a run writes it now: one that builds an artifact holds its lock."""
    lock = lock_of(unfinished)
    if not lock.is_file():
        try:
            return time.time() - unfinished.lstat().st_mtime < _WRITTEN_S
        except FileNotFoundError:  # who wrote it has just given it its name
            return True
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _remove_unfinished(path: Path) -> bool:
    if _is_at_work(path):
        return False
    with suppress(Timeout), FileLock(lock_of(path), timeout=0):
        delete(path)
        return True
    return False
