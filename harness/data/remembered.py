"""What was found out about files, remembered between runs for as long as they are the same files, unchanged.

Archives unpack files of one size with one modification time, whatever they hold, and moving folders exchanges them. So
a file is known by its number and the time of its last change, too, which no program sets: where a file system keeps
neither, and where a folder was copied, files are read again. It is only ever a saving: what is damaged is ignored, and
what cannot be written is not.
"""

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from coreml_prune_bench.core.cache_folder import cache_folder
from coreml_prune_bench.core.files import read_file

Arrays = dict[str, NDArray]

_STAMP = "stamp"

_About = tuple[int, int, int, int]
"""Of a file: its size, modification time, number and the time of its last change."""


class DigestCache:
    """SHA-256 of the files beneath one folder, remembered by their paths and what the system says of them."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._path = cache_folder() / "digests" / f"{_short_hash(str(self._root))}.json"
        self._known = self._read()
        self._seen: dict[str, tuple[_About, str]] = {}

    def digest(self, file: str) -> str:
        """SHA-256 (hex) of the file at this path relative to the folder; OSError where it cannot be read."""
        path = f"{self._root}/{file}"
        about = _about(os.stat(path))  # before reading: a file changed meanwhile then misses the cache next time
        known = self._known.get(file)
        if known is None or known[0] != about:
            known = (about, hashlib.sha256(read_file(Path(path))).hexdigest())
        self._seen[file] = known
        return known[1]

    def save(self, *, whole: bool) -> None:
        """Write what was seen; unless that is the `whole` folder, what was known of other files stays beside it."""
        seen = self._seen if whole else self._known | self._seen
        if seen != self._known:
            content = json.dumps({"root": str(self._root), "files": seen}).encode()
            _write(self._path, lambda stream: stream.write(content))

    def _read(self) -> dict[str, tuple[_About, str]]:
        # AttributeError, TypeError and ValueError: JSON of another shape, or no JSON at all.
        with suppress(OSError, AttributeError, KeyError, TypeError, ValueError):
            content = json.loads(self._path.read_bytes())
            if content["root"] == str(self._root):
                return {file: _entry(*entry) for file, entry in content["files"].items()}
        return {}


def remembered(kind: str, files: Sequence[Path], find: Callable[[], Arrays]) -> Arrays:
    """What `find` tells about these files, from an earlier run if there was one and they have not changed since.

    `kind` names what is found and holds whatever else it depends on. OSError where a file is gone.
    """
    known = [(str(file.resolve()), *_about(file.stat())) for file in files]
    stamp = json.dumps([kind, known])
    place = cache_folder() / "digests" / f"{_short_hash(kind + ''.join(path for path, *_ in known))}.npz"
    # zlib and zipfile check every array's CRC as it is read; EOFError and KeyError: half a file, or another one.
    unreadable = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)
    with suppress(*unreadable), np.load(place, allow_pickle=False) as found:
        if str(found[_STAMP]) == stamp:
            return {name: found[name] for name in found.files if name != _STAMP}
    arrays = find()
    _write(place, lambda stream: np.savez(stream, allow_pickle=False, **{_STAMP: np.array(stamp)}, **arrays))
    return arrays


def _write(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write `path`, under a temporary name first so that a reader never meets half of it."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                fill(stream)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _short_hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def _about(stat: os.stat_result) -> _About:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns


def _entry(about: list[int], digest: str) -> tuple[_About, str]:
    if len(bytes.fromhex(digest)) != hashlib.sha256().digest_size:
        raise ValueError(f"not a SHA-256: {digest}")
    size, mtime_ns, number, ctime_ns = map(int, about)
    return (size, mtime_ns, number, ctime_ns), digest
