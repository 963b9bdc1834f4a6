"""A results folder at an address, such as s3://bucket/results, and its copy on this machine, which all else works with.

fsspec reads and writes the address, whatever it is (S3, Google's and Microsoft's clouds, SFTP, a share); who may, says
its own configuration. Records come when a command begins. An artifact comes when it is asked for, and goes there when
it is made, as a record does when it is written: what was measured is there, whatever becomes of this machine.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from coreml_prune_bench.core.cache_folder import cache_folder, use_new
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.files import MANIFEST, is_foreign, write_atomically

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_ADDRESS = "address"
_SEEN = "seen.json"
"""By name: the file there, as its system tells it apart, and the one here, when both were the same. Of an artifact,
whose key says what it is, nothing more."""
_RECORDS = ("records", "latency", "parity")


def is_address(results: str) -> bool:
    """Whether it is no folder of this machine."""
    return "://" in results


class Mirror:
    """folder: the copy. Raises BenchError of one line for an address that cannot be opened."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        readable = "".join(letter if letter.isalnum() else "-" for letter in self.address)[-48:].strip("-")
        name = f"{readable}-{hashlib.sha256(self.address.encode()).hexdigest()[:8]}"
        self._cache = cache_folder() / "results" / name
        self.folder = self._cache / "results"
        _ = self._system  # an address that is none is told at once
        self._use = use_new(self._cache)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self._cache / _ADDRESS).exists():
            write_atomically(self._cache / _ADDRESS, self.address)

    @classmethod
    def of(cls, folder: Path) -> "Mirror | None":
        """The one whose copy a results folder is, if it is one."""
        address = folder.parent / _ADDRESS
        return cls(address.read_text()) if folder.name == "results" and address.is_file() else None

    def pull(self) -> None:
        """Records as they are there: new ones come, and those that went there go here."""
        with self._seen() as seen:
            there: dict[str, str] = {}
            for kind in _RECORDS:
                there |= self._listed(kind)
            for name, told in there.items():
                if not self._is_same(name, told, seen):
                    self._fetch(name, told, seen)
            for name in [name for name in seen if name.split("/")[0] in _RECORDS and name not in there]:
                del seen[name]
                (self.folder / name).unlink(missing_ok=True)

    def push(self) -> None:
        """What is of this machine and did not go there yet: records, and artifacts where the way was barred before."""
        for manifest in sorted(self.folder.glob(f"artifacts/[!.]*/{MANIFEST}")):
            with self._seen() as seen:
                is_there = self._name(manifest.parent) in seen
            if not is_there:
                self.send_artifact(manifest.parent)
        with self._seen() as seen:
            for kind in _RECORDS:
                for path in sorted((self.folder / kind).glob("*.json")):
                    name = self._name(path)
                    if not is_foreign(path.name) and (name not in seen or seen[name][1] != _here(path)):
                        self._send(name, seen)

    def send(self, path: Path) -> None:
        """A record that was written here. A failed one gives way to one that another machine has measured."""
        with self._seen() as seen:
            self._send(self._name(path), seen)

    def send_artifact(self, folder: Path) -> None:
        """One that was made here; its manifest last, so that nobody finds a half of it."""
        name = self._name(folder)
        with _explained(self.address):
            _put_artifact(self._system, self._root, name, folder)
        with self._seen() as seen:
            seen[name] = ["", ""]

    def has_artifact(self, folder: Path) -> bool:
        """Whether one is there whose place here is this folder."""
        with _explained(self.address):
            self._system.invalidate_cache()
            return self._system.exists(f"{self._root}/{self._name(folder)}/{MANIFEST}")

    def fetch_artifact(self, folder: Path) -> bool:
        """What is there of one, into its place here; whether there is one. The caller sees whether it is whole."""
        if not self.has_artifact(folder):
            return False
        name = self._name(folder)
        with _explained(self.address):
            unfinished = folder.with_name(f".{folder.name}.tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            self._system.get(f"{self._root}/{name}/", f"{unfinished}/", recursive=True)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(unfinished, folder)
        with self._seen() as seen:
            seen[name] = ["", ""]
        return True

    def _name(self, path: Path) -> str:
        """Below the address, and below the copy."""
        return path.relative_to(self.folder).as_posix()

    @cached_property
    def _opened(self) -> "tuple[AbstractFileSystem, str]":
        return _open(self.address)

    @property
    def _system(self) -> "AbstractFileSystem":
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    def _listed(self, kind: str) -> dict[str, str]:
        """The records there, and what tells each from another of its name."""
        with _explained(self.address):
            self._system.invalidate_cache()
            if not self._system.exists(f"{self._root}/{kind}"):
                return {}
            found = self._system.ls(f"{self._root}/{kind}", detail=True)
            files = [one for one in found if one["type"] == "file" and str(one["name"]).endswith(".json")]
            return {f"{kind}/{PurePosixPath(one['name']).name}": _there(one) for one in files}

    def _is_same(self, name: str, told: str, seen: dict[str, list[str]]) -> bool:
        path = self.folder / name
        return name in seen and seen[name][0] == told and path.is_file()

    def _fetch(self, name: str, told: str, seen: dict[str, list[str]]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with _explained(self.address):
            write_atomically(path, self._system.cat_file(f"{self._root}/{name}"))
        seen[name] = [told, _here(path)]

    def _send(self, name: str, seen: dict[str, list[str]]) -> None:
        path, place = self.folder / name, f"{self._root}/{name}"
        with _explained(self.address):
            if _has_failed(path.read_bytes()) and self._has_measured(place):
                self._fetch(name, _there(self._system.info(place)), seen)
                return
            _put(self._system, path, place)
            self._system.invalidate_cache()
            seen[name] = [_there(self._system.info(place)), _here(path)]

    def _has_measured(self, place: str) -> bool:
        """Whether a record is there that did not fail."""
        self._system.invalidate_cache()
        return self._system.exists(place) and not _has_failed(self._system.cat_file(place))

    @contextmanager
    def _seen(self) -> Iterator[dict[str, list[str]]]:
        """What was seen of files here and there; kept when the block has ended, as far as it came."""
        path = self._cache / _SEEN
        with FileLock(self._cache / ".seen.lock"):
            seen: dict[str, list[str]] = json.loads(path.read_text()) if path.exists() else {}
            try:
                yield seen
            finally:
                write_atomically(path, json.dumps(seen))


def send_artifact(address: str, store: Path, folder: Path) -> None:
    """Send an artifact from a machine that keeps no copy of the results there; nothing where it is there already.

    store, folder: a results folder and the artifact's in it. Raises BenchError of one line.
    """
    system, root = _open(address.rstrip("/"))
    name = folder.relative_to(store).as_posix()
    with _explained(address):
        if not system.exists(f"{root}/{name}/{MANIFEST}"):
            _put_artifact(system, root, name, folder)


def _open(address: str) -> "tuple[AbstractFileSystem, str]":
    from fsspec.core import url_to_fs

    with _explained(address):
        system, root = url_to_fs(address)
        return system, str(root).rstrip("/")


def _put_artifact(system: "AbstractFileSystem", root: str, name: str, folder: Path) -> None:
    """Its manifest last, so that nobody finds a half of it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    for path in [*paths, folder / MANIFEST]:
        _put(system, path, f"{root}/{name}/{path.relative_to(folder).as_posix()}")


def _put(system: "AbstractFileSystem", path: Path, target: str) -> None:
    system.makedirs(target.rpartition("/")[0], exist_ok=True)
    system.put_file(str(path), target)


def _has_failed(content: bytes) -> bool:
    """Whether it is the record of a row that could not be measured."""
    try:
        record = json.loads(content)
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("status") == "failed"


def _here(path: Path) -> str:
    about = path.stat()
    return f"{about.st_mtime_ns}, {about.st_size} bytes"


def _there(about: dict[str, Any]) -> str:
    """What a system says of a file that is another where the file is another: a hash, if it has one, or its time."""
    for name in ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created"):
        if about.get(name):
            return f"{about[name]}, {about['size']} bytes"
    return f"{about['size']} bytes"


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Systems raise what their own libraries have: one line of it, with the address."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise BenchError(f"--results {address}: {said}") from error
