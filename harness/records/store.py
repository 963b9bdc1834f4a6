"""Where a run keeps what it made: artifacts and records in one results folder, complete or not there at all.

    RESULTS/artifacts/<key>/    a package or a trained network, with a manifest of its files' hashes
    RESULTS/records/<name>.json a record a cell

Where the folder is the copy of one at an address, both go there as well (`mirror.py`).

Both are written under a temporary name and renamed. An artifact is written under a lock, so that two runs that need the
same one build it once, and its hashes are checked whenever it is used.
"""

import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock

from coreml_prune_bench.core.cache_folder import delete
from coreml_prune_bench.core.errors import BenchError, DamagedFileError
from coreml_prune_bench.core.files import MANIFEST, are_there, json_files, refuse_folder, tree_hashes, write_atomically
from coreml_prune_bench.records.accuracy import Record, read_record
from coreml_prune_bench.records.folder import Warn, set_aside
from coreml_prune_bench.records.mirror import Mirror

_LAYOUT = 1
"""Of what `fill` returns. Artifacts of another layout are made again."""


class Store:
    """One results folder, made when first written to. Raises BenchError where it cannot be, or nothing be added."""

    def __init__(self, folder: Path) -> None:
        self._artifacts = folder / "artifacts"
        self._records = folder / "records"
        for part in (self._artifacts, self._records):
            refuse_folder(part, f"--results {folder}")
        self._mirror = Mirror.of(folder)
        self._is_clear = False

    def artifact(self, key: str, fill: Callable[[Path], dict[str, Any]]) -> Path:
        """The folder of the artifact `key`; `fill` makes it, if need be, in the empty folder that it is given.

        What `fill` returns is kept in the manifest. An artifact is made again where it was made under another key, or a
        file that was written is gone or another now; files that the manifest does not name are no concern of it.
        """
        folder = self._folder_of(key)
        self._artifacts.mkdir(parents=True, exist_ok=True)
        self._clear()
        with FileLock(self._artifacts / f".{key[:16]}.lock"):
            if not _is_whole(folder, key) and not self._fetched(folder, key):
                _make(folder, key, fill)
                if self._mirror:
                    self._mirror.send_artifact(folder)
        return folder

    @property
    def address(self) -> str | None:
        """Whose copy the folder is, if it is one."""
        return self._mirror.address if self._mirror else None

    def is_kept(self, key: str) -> bool:
        """Whether the artifact `key` is here, or at the address whose copy the folder is, and may stay."""
        folder = self._folder_of(key)
        return _is_whole(folder, key) or bool(self._mirror and self._mirror.has_artifact(folder))

    @property
    def packages(self) -> Path:
        """The folder in which every package has one of its own."""
        return self._artifacts

    def place_of(self, path: Path) -> str:
        """Where an artifact's file lies below the results folder."""
        return path.relative_to(self._artifacts.parent).as_posix()

    def found(self, key: str) -> Path | None:
        """The folder of the artifact `key`, where it is there and whole."""
        folder = self._folder_of(key)
        return folder if _is_whole(folder, key) or self._fetched(folder, key) else None

    def _fetched(self, folder: Path, key: str) -> bool:
        """Whether the artifact was at the address whose copy this folder is, and is here now."""
        return bool(self._mirror and self._mirror.fetch_artifact(folder) and _is_whole(folder, key))

    def _folder_of(self, key: str) -> Path:
        return self._artifacts / key[:16]

    def manifest(self, folder: Path) -> dict[str, Any]:
        """What `fill` returned for this artifact."""
        return _made(folder)

    def record(self, name: str) -> Record | None:
        """The record written under `name`, if there is one. Raises DamagedFileError for what is none."""
        path = self._path(name)
        return read_record(path) if os.path.lexists(path) else None

    def record_of(self, name: str, why_not: Callable[[Record], str | None], warn: Warn) -> Record | None:
        """The record written under `name`, if it is what was asked for.

        A damaged one, and one of which `why_not` says why it is another, is set aside: renamed, and `warn` is told.
        """
        try:
            record = self.record(name)
            if record is None or why_not(record) is None:
                return record
        except DamagedFileError:
            pass
        with self._records_lock():  # and then again: another run may have measured it meanwhile
            try:
                record = self.record(name)
                reason = record and why_not(record)
                if reason is None:
                    return record
                reason = f"{self._path(name)} {reason}"
            except DamagedFileError as error:
                reason = str(error)
            warn(f"{reason}; set aside as {set_aside(self._path(name)).name}, to be measured again")
            return None

    def records(self, stem: str) -> Iterator[Record]:
        """Every record that can be read of those whose names are `stem` and a key; others are passed over."""
        for path in json_files(self._records, f"{glob.escape(stem)}--*.json"):
            with suppress(BenchError):  # a later version's too
                yield read_record(path)

    def write_record(self, name: str, record: Record) -> Record:
        """Write a record in one go; returns the one that counts.

        A failed one does not replace one that another run has measured meanwhile, here or at the address.
        """
        with self._records_lock():
            there = self.record(name) if record.status == "failed" else None
            if there and there.status == "measured" and there.key == record.key:
                return there
            write_atomically(self._path(name), record.to_json())
        if self._mirror:
            self._mirror.send(self._path(name))
            if record.status == "failed":  # it may have given way to one that is there
                return self.record(name) or record
        return record

    def _clear(self) -> None:
        """Remove, once, what runs that were killed left unfinished; what is being made now is locked."""
        if self._is_clear:
            return
        self._is_clear = True
        for unfinished in self._artifacts.glob(".*.tmp"):
            with suppress(OSError), FileLock(lock_of(unfinished), timeout=0):
                delete(unfinished)
        with self._records_lock():
            for written in self._records.glob(".*.tmp"):
                written.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def _records_lock(self) -> BaseFileLock:
        self._records.mkdir(parents=True, exist_ok=True)
        self._artifacts.mkdir(parents=True, exist_ok=True)
        return FileLock(self._artifacts / ".records.lock")


def manifests(results: Path) -> Iterator[dict[str, Any]]:
    """What `fill` returned for every artifact of a results folder, the oldest first. Damaged ones are passed over."""
    files = [path for path in (results / "artifacts").glob(f"*/{MANIFEST}") if path.is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        with suppress(OSError, ValueError, KeyError, TypeError):
            yield _made(path.parent)


def _made(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / MANIFEST).read_text())["made"]
    return made


def lock_of(unfinished: Path) -> Path:
    """Of `.KEY.tmp`, `.KEY.checkpoint` and the like: `.KEY.lock`, which whoever makes the artifact holds."""
    key = unfinished.name.split(".")[1]
    return unfinished.with_name(f".{key}.lock")


def _make(folder: Path, key: str, fill: Callable[[Path], dict[str, Any]]) -> None:
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    try:
        unfinished.mkdir()
        manifest = {"layout": _LAYOUT, "key": key, "made": fill(unfinished), "files": tree_hashes(unfinished)}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2))
        shutil.rmtree(folder, ignore_errors=True)  # of an artifact that is damaged
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _is_whole(folder: Path, key: str) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        is_it = manifest.get("layout", 1) == _LAYOUT and manifest["key"] == key  # not a copy of another one
        return bool(is_it and isinstance(manifest["made"], dict) and are_there(folder, manifest["files"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
