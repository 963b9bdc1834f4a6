"""Writing files whole, and telling whether they are what was written.

Of a folder count the files that its maker put there. Systems leave files of their own wherever a folder is looked at,
shared or copied, and people leave notes; neither changes what a package or an artifact is.
"""

import errno
import hashlib
import json
import mmap
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from coreml_prune_bench.core.errors import BenchError

MANIFEST = "manifest.json"
"""In the folder of an artifact: it says what the other files are, and is not among them."""

_PACKAGE_MANIFEST = "Manifest.json"
_MOST_MANIFEST_BYTES = 1 << 20
"""Of a package's own manifest: a few hundred bytes are usual. A larger one is none."""

_FOREIGN_NAMES = frozenset(
    {".appledouble", ".directory", ".ds_store", ".fseventsd", ".localized", ".spotlight-v100", ".temporaryitems"}
    | {".trashes", "__macosx", "@eadir", "desktop.ini", "ehthumbs.db", "thumbs.db"}
)
_FOREIGN_BEGINNINGS = ("._", ".nfs", ".fuse_hidden")
"""What macOS writes beside a file on a disk that has no room for attributes; files removed while they were open."""


def is_foreign(name: str) -> bool:
    """Whether a file or folder of this name is one that systems make by themselves: `.DS_Store`, `._x`, `Thumbs.db`."""
    return name.lower() in _FOREIGN_NAMES or name.startswith(_FOREIGN_BEGINNINGS)


def json_files(folder: Path, pattern: str = "*.json") -> list[Path]:
    """The files in `folder` that match, sorted, without foreign ones (`._x.json`). None where there is no folder.

    Raises OSError where it cannot be read, which Path.glob takes for a folder without files.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(folder / name for name in names if fnmatchcase(name, pattern) and not is_foreign(name))


def files_of(folder: Path) -> list[Path]:
    """The files below `folder` that count, sorted.

    Of a Core ML package, what it names: its manifest, what that lists, listed folders with all that is in them but
    foreign files, and every file, listed or foreign or not, that a listed model refers to. Of any other folder: all but
    foreign files. MANIFEST does not count.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    items = _items(folder)
    return [path for path in files if _counts(path, folder, items)]


def tree_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of every file below `folder` that counts, by its path relative to it."""
    return _hashes(folder, files_of(folder))


def tree_hash(folder: Path) -> str:
    """SHA-256 (hex) that stands for the files below `folder` that count: a package's, as all records have it."""
    return _joint(tree_hashes(folder))


def tree_hash_of_all(folder: Path) -> str:
    """As `tree_hash`, of every file whether it counts or not: what versions before 0.2 called a package's hash."""
    return _joint(_hashes(folder, sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)))


def are_there(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Whether each file of `hashes` (SHA-256 by path relative to `folder`) is there, with that content."""
    return all((folder / name).is_file() and file_hash(folder / name) == digest for name, digest in hashes.items())


def refuse_folder(folder: Path, told: str) -> None:
    """Raise BenchError of one line where nothing can be written in `folder`, there or to be made. Makes nothing.

    told: what the line begins with, such as the option that names it.
    """
    for place in (folder, *folder.parents):
        try:
            if not stat.S_ISDIR(place.stat().st_mode):
                raise BenchError(f"{told}: {place} is a file; expected a folder")
            if not os.access(place, os.W_OK | os.X_OK):
                raise BenchError(f"{told}: nothing can be written in {place}")
            return
        except (FileNotFoundError, NotADirectoryError) as error:
            if os.path.islink(place):
                raise BenchError(f"{told}: {place} is a link that leads nowhere") from error
        except OSError as error:
            raise BenchError(f"{told}: {error.strerror}; expected a folder") from error


def refuse_file(path: Path, told: str, *, replace: bool = False) -> None:
    """Raise BenchError of one line where no file can be written to `path`, or, without `replace`, one is there.

    told: what the line begins with. Makes nothing; the folder has to be there.
    """
    try:
        if path.is_dir():
            raise BenchError(f"{told}: it is a folder, expected the name of a file")
        if not path.parent.is_dir():
            raise BenchError(f"{told}: {path.parent} is not a folder")
        if os.path.lexists(path) and not replace:
            raise BenchError(f"{told} exists; --force replaces it")
        with suppress(FileNotFoundError):
            path.lstat()
    except OSError as error:
        raise BenchError(f"{told}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise BenchError(f"{told}: nothing can be written in {path.parent}")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `path` so that a reader finds the whole of `content` (text as UTF-8) or what was there before.

    So it is after a power failure too: the content is on the disk before its name is, and the name when this returns.
    """
    # Of a length of its own, so that it is no longer than the longest name. Not tempfile's, which only their owner can
    # read.
    short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    unfinished = path.with_name(f".{short}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:
        error.filename = str(path)  # a full disk names none
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Where the system can: some have no folders to open, and some file systems nothing to be done."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_file(path: Path) -> bytes:
    """The content of a file. OSError for what is none: a pipe lets its reader wait, and a device may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no file, but a folder, a pipe or a device", str(path))
    return path.read_bytes()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hashes(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def _joint(hashes: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _items(folder: Path) -> frozenset[Path]:
    """What a package's manifest lists, files and folders; nothing where `folder` is no package, or a strange one."""
    manifest = folder / _PACKAGE_MANIFEST
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if manifest.is_file() and manifest.stat().st_size <= _MOST_MANIFEST_BYTES:
            entries = json.loads(manifest.read_bytes())["itemInfoEntries"].values()
            places = [PurePosixPath(entry["path"]) for entry in entries]
            if not any(place.is_absolute() or ".." in place.parts for place in places):
                return frozenset(folder / "Data" / place for place in places)
    return frozenset()


def _counts(path: Path, folder: Path, items: Collection[Path]) -> bool:
    place = path.relative_to(folder)
    foreign = any(is_foreign(part) for part in place.parts)
    if not items:
        return not foreign
    if path in items or place == Path(_PACKAGE_MANIFEST):
        return True
    listed = any(parent in items for parent in path.parents)
    return (listed and not foreign) or any(_mentions(item, path) for item in items)


def _mentions(model: Path, path: Path) -> bool:
    """Whether each name on the way from the model to the file stands in the model, however the way is written there.

    In capitals or not, as macOS finds files. Letters beyond ASCII, which are written in several ways, count as named,
    so that no weight is overlooked.
    """
    if not model.is_file() or not model.stat().st_size:
        return False
    shared = len(os.path.commonpath((model.parent, path)))
    names = {name.lower() for name in Path(str(path)[shared:].lstrip(os.sep)).parts if name.isascii()}
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return all(re.search(re.escape(name.encode()), content, re.IGNORECASE) for name in names)
