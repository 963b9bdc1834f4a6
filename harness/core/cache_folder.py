"""Where this project keeps what it can make again, and how nothing is removed there that a process uses.

CACHE/<kind>/<entry>    a file or folder, locked (shared) by each process that uses it; its time is that of its last use
"""

import fcntl
import os
import shutil
import stat
import uuid
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Self

import platformdirs

from coreml_prune_bench.models.paths import expanded

CACHE_VARIABLE = "COREML_BENCH_CACHE"
"""Names another folder than the user's own cache."""


def cache_folder() -> Path:
    return expanded(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("coreml-prune-bench"))


class Use:
    """This process's use of an entry: until `end`, the end of a `with` statement, or the end of this object."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    def end(self) -> None:
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


def use(entry: Path) -> Use | None:
    """Keep `remove` from an entry; any number of processes may. None where it is not there, or cannot be locked."""
    with suppress(FileNotFoundError):
        return _used(entry)
    return None


def use_new(folder: Path) -> Use | None:
    """As `use`, of a folder that is made where it is not there. Raises OSError where it cannot be made."""
    while True:
        with suppress(FileNotFoundError):  # removed between two of these
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileExistsError:  # of a folder too, where it is removed while it is made
                if not stat.S_ISDIR(os.stat(folder).st_mode):
                    raise
            return _used(folder)


def remove(entry: Path) -> bool:
    """Remove an entry unless a process uses it, this one or another; returns whether it is gone."""
    try:
        lock = _locked(entry, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    if lock is None:
        return False
    gone = entry.with_name(f".{uuid.uuid4().hex}.removed")  # nobody is to find a half of it
    os.replace(entry, gone)
    delete(gone)
    lock.end()
    return True


def is_used(entry: Path) -> bool:
    """Whether a process uses the entry, this one or another; also where that cannot be known."""
    try:
        return _locked(entry, fcntl.LOCK_EX | fcntl.LOCK_NB) is None
    except FileNotFoundError:
        return False


def _used(entry: Path) -> Use | None:
    found = _locked(entry, fcntl.LOCK_SH)
    if found:
        with suppress(OSError):
            os.utime(entry)
    return found


def _locked(entry: Path, how: int) -> Use | None:
    """The entry, locked, or None where the system refuses. Raises FileNotFoundError where it is not there."""
    # By flock itself: filelock's locks keep other users out, too.
    try:
        while True:
            found = Use(os.open(entry, os.O_RDONLY))
            fcntl.flock(found.descriptor, how)
            if os.path.samestat(os.fstat(found.descriptor), os.stat(entry)):  # else another took its place meanwhile
                return found
    except FileNotFoundError:
        raise
    except OSError:
        return None


def delete(path: Path) -> None:
    """Whatever is there, if anything; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
