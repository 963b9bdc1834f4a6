"""The record files of a results folder: those that can be read, each key once, and what is done about the others.

A file is damaged where it cannot be what was written: empty, half, of numbers that nothing measures, no file at all.
Readers name it and go on; what measures sets it aside (`set_aside`) and measures again.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from coreml_prune_bench.core.errors import BenchError, DamagedFileError
from coreml_prune_bench.core.files import json_files

if TYPE_CHECKING:
    from coreml_prune_bench.records.accuracy import Record
    from coreml_prune_bench.records.latency import LatencyRecord

_Read = TypeVar("_Read")

Warn = Callable[[str], None]


@dataclass(frozen=True)
class RecordFiles(Generic[_Read]):
    """contents: what was read, one a key, in the order of the files' names, which are `names`.

    damaged: files that cannot be read, and why, in a line that names them. left_out: what to tell of files that do not
    count, those and copies.
    """

    contents: list[_Read]
    names: list[str]
    damaged: dict[Path, str]
    left_out: list[str]

    def tell(self, warn: Warn | None = None) -> None:
        """Say of each file that is left out that it is. warn: standard error, if not given."""
        for line in self.left_out:
            (warn or on_standard_error)(line)

    @property
    def doubtful(self) -> list[tuple[Path, str]]:
        """Damaged files of which another state is there: (file, that one's name). Which is the newest nobody knows."""
        others = {row: name for name in self.names if (row := _row_of(name))}
        return [(path, others[row]) for path in self.damaged if (row := _row_of(path.name)) in others]


def read_folder(
    folder: Path,
    read: Callable[[Path], _Read],
    record_of: "Callable[[_Read], Record | LatencyRecord]",
    *,
    measured_by: str,
) -> RecordFiles[_Read]:
    """Read `folder/*.json`. What `read` raises besides DamagedFileError is raised.

    measured_by: the command that measures again what is damaged.
    """
    found: list[tuple[Path, _Read]] = []
    damaged: dict[Path, str] = {}
    for path in json_files(folder):
        try:
            found.append((path, read(path)))
        except DamagedFileError as error:
            damaged[path] = str(error)
    left_out = [f"{why}; left out, `{measured_by}` measures it again" for why in damaged.values()]
    kept = _each_once([(path, record_of(content)) for path, content in found], left_out.append)
    found = [(path, content) for path, content in found if path in kept]
    return RecordFiles([content for _, content in found], [path.name for path, _ in found], damaged, left_out)


def refuse_nothing(files: Iterable[RecordFiles], missing: str, folder: Path) -> None:
    """Raise BenchError where no record was read: with `missing`, or because all there are are damaged."""
    files = list(files)
    if any(one.contents for one in files):
        return
    for why in (why for one in files for why in one.damaged.values()):
        raise BenchError(f"{why}; {folder} has no record that can be read")
    raise BenchError(missing)


def set_aside(path: Path) -> Path:
    """Rename what stands at `path`, a file or not, so that it is no record any more; returns the new path."""
    names = (f"{path.name}.damaged{'' if number == 1 else f'-{number}'}" for number in count(1))
    aside = next(one for one in map(path.with_name, names) if not os.path.lexists(one))
    path.rename(aside)
    return aside


def _each_once(found: "Sequence[tuple[Path, Record | LatencyRecord]]", warn: Warn) -> set[Path]:
    """The files that count: of several with one key, copies or not, one; two trials of one key would be one twice."""
    by_key: dict[str, list[tuple[Path, Record | LatencyRecord]]] = {}
    for path, record in found:
        by_key.setdefault(record.key, []).append((path, record))
    kept = set()
    for copies in by_key.values():
        chosen = max(copies, key=_standing)[0]
        kept.add(chosen)
        for path, _ in copies:
            if path != chosen:
                warn(f"{path} is left out: it holds the record that {chosen.name} holds, which counts once")
    return kept


def _standing(copy: "tuple[Path, Record | LatencyRecord]") -> tuple[bool, bool, str, int]:
    path, record = copy
    named_so = path.stem.endswith(record.key[:12])
    # The shortest name, last: "copy of X" would come before X, and tables list rows in the order of the files.
    return named_so, record.status == "measured", record.provenance.created, -len(path.name)


def _row_of(name: str) -> str:
    """Of "resnet50--dense--float16--trial1--0ff9ca5a922e.json" what stands before the key; empty for other names."""
    return name.rpartition("--")[0]


def on_standard_error(line: str) -> None:
    """A `Warn`."""
    from coreml_prune_bench.core.progress import warn  # only where there is something to say

    warn(line)
