"""Tables of images as `datasets` loads them: what a folder or a hub has of them, by split."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.core.files import is_foreign
from coreml_prune_bench.data.remembered import Arrays, remembered
from coreml_prune_bench.models.pointers import pointer_problem

if TYPE_CHECKING:
    import datasets  # type: ignore[import-untyped]

    Tables = dict[str, Callable[[], datasets.Dataset]]
    """What loads each split, by its name."""

_SPLIT_FILE = re.compile(r"(train|validation|val|test)(?=[-_.]|$)")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.parquet$")

_AnyPath = TypeVar("_AnyPath", Path, PurePosixPath)


@dataclass(frozen=True)
class Parts:
    """A data set's splits. revision: the commit that they are of, for those on the hub. notes: as a Split's."""

    tables: "Tables"
    revision: str | None = None
    notes: tuple[str, ...] = ()


@contextmanager
def loading(name: str, expected: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the hub's client, its HTTP library and every reader have families of their own
        raise DataError(f"cannot load data set {name}: {reason_of(error)}; expected {expected}") from error


def reason_of(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__


def loaded(found: Any) -> "Tables":
    """The splits of what `datasets` has loaded: a table, or a dictionary of them."""
    import datasets

    tables = {"val": found} if isinstance(found, datasets.Dataset) else found
    return {part: partial(tables.__getitem__, part) for part in tables}


def local_parts(name: str, files: list[Path]) -> Parts:
    """The splits of these parquet files; those that are of no split are told where others are."""
    splits = by_split(files)
    used = {file for of_split in splits.values() for file in of_split}
    unused = [file.name for file in files if file not in used]
    told = (
        f"{name}: {len(unused)} parquet files are left out, whose names begin with no split ({unused[0]}, ...)"
        if unused
        else ""
    )
    return Parts(parquet_parts(name, splits, can_change=True), notes=(told,) if told else ())


def parquet_parts(name: str, files: Mapping[str, Sequence[Path]], *, can_change: bool = False) -> "Tables":
    """What loads each split. can_change: the files are the user's, and not those of one commit."""

    @cache
    def load(part: str) -> "datasets.Dataset":
        with loading(name, "readable parquet files"):
            _check_shards(files[part])
            return _unpacked_again(part, files[part]) if can_change else _unpacked(part, files[part])

    return {part: partial(load, part) for part in files}


def _unpacked(part: str, files: Sequence[Path], mode: str = "reuse_dataset_if_exists") -> "datasets.Dataset":
    import datasets

    paths = [str(path) for path in files]
    return datasets.load_dataset("parquet", data_files={part: paths}, split=part, download_mode=mode)


def _unpacked_again(part: str, files: Sequence[Path]) -> "datasets.Dataset":
    """Anew where files are not known to be those that were unpacked: `datasets` knows them by path and time alone."""
    made: list[datasets.Dataset] = []

    def make() -> Arrays:
        made.append(_unpacked(part, files, "force_redownload"))
        return {}

    remembered(f"unpacked as {part}", files, make)
    return made[0] if made else _unpacked(part, files)


def _check_shards(files: Sequence[Path]) -> None:
    """DataError where some of the files NAME-00000-of-00014.parquet are missing, or were never fetched."""
    for file in files:
        if problem := pointer_problem(file):
            raise DataError(f"{file}: {problem}")
    shards = [int(match[1]) for file in files if (match := _SHARD.search(file.name))]
    if shards and len(files) != shards[0]:
        raise DataError(
            f"{files[0].parent} holds {len(files)} of the {shards[0]} files like {files[0].name}: expected all of them"
        )


def parquet_files(folder: Path) -> list[Path]:
    for place in (folder, folder / "data"):
        found = sorted(file for file in place.glob("*.parquet") if not is_foreign(file.name))
        if found:
            return found
    raise DataError(f"{folder} holds no parquet files: expected some in it or in data/, or a folder of save_to_disk")


def by_split(paths: Sequence[_AnyPath]) -> dict[str, list[_AnyPath]]:
    """Files by the split their names begin with (train-00000-of-00002.parquet); without such names, all are val."""
    splits: dict[str, list[_AnyPath]] = {}
    for path in paths:
        match = _SPLIT_FILE.match(path.name)
        if match:
            splits.setdefault(match[1], []).append(path)
    return splits or {"val": list(paths)}


def parquet_of(files: Sequence[_AnyPath]) -> list[_AnyPath]:
    """The parquet files, where they lie in one folder, under the names of splits: those of one configuration."""
    found = sorted(file for file in files if file.suffix == ".parquet" and not is_foreign(file.name))
    if len({file.parent for file in found}) == 1 and all(_SPLIT_FILE.match(file.name) for file in found):
        return found
    return []
