"""Writing files whole, and telling whether they are what was written."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

MANIFEST = "manifest.json"
"""In the folder of an artifact: it says what the other files are, and is not among them."""


def tree_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of every file below `folder`, by its path relative to it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def tree_hash(folder: Path) -> str:
    """SHA-256 (hex) that stands for every file below `folder`: a package's, as all records have it."""
    return hashlib.sha256(json.dumps(tree_hashes(folder), sort_keys=True).encode()).hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `path` so that a reader finds the whole of `content` (text as UTF-8) or what was there before.

    So it is after a power failure too: the content is on the disk before its name is, and the name when this returns.
    """
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.tmp")  # not tempfile's: those only their owner can read
    try:
        with unfinished.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
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


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
