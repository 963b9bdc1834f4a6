"""Translated packages on disk, so that a package loads without being translated again, in any process.

    CACHE/portable/<key>/   what `model_file` writes, and a manifest of its files' hashes

The key is a hash of everything that the translation depends on: the package's files, the function, the precision, the
shapes, the code of this back end, and ONNX Runtime's version. What is kept is the model before ONNX
Runtime has fitted it to this machine's CPU, so that a cache may be shared or moved. Hashes are checked whenever an
entry is used; one that does not match is made again. Nothing here is needed: where the cache cannot be written to, a
temporary folder takes its place.

It must import neither onnx nor coremltools, which would take longer than all the rest.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import onnxruntime  # type: ignore[import-untyped]

from coreml_prune_bench.core.cache_folder import Use, cache_folder, remove, use
from coreml_prune_bench.core.files import MANIFEST, are_there, file_hash, is_foreign, tree_hash, tree_hashes

OFF_VARIABLE = "COREML_BENCH_NO_CACHE"
"""Set to anything, it turns the cache off."""

MOST_BYTES = 4 << 30
"""Of all entries together: some forty networks of a ResNet50's size. The ones longest unused go first."""
LEAST_BYTES = 1 << 20
"""A model of fewer bytes is translated about as quickly as it is found, and tests make thousands of them."""

_PATIENCE_S = 10
_DAY_S = 86_400


def is_on() -> bool:
    return not os.environ.get(OFF_VARIABLE)


def content(package: Path) -> str | None:
    """A hash of the package's files; None where they cannot be read."""
    try:
        return tree_hash(package)
    except OSError:
        return None


def key(content: str, function: str | None, precision: str, shapes: Mapping[str, tuple[int, ...]] | None) -> str:
    """Of the entry for `shapes` (None: the default ones)."""
    parts = {
        "package": content,
        "function": function,
        "precision": precision,
        "shapes": shapes,
        "code": code_hashes(),
        "onnxruntime": onnxruntime.__version__,
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def in_use(folder: Path) -> Use | None:
    """What keeps the entry with this folder, as long as it lives; None for the folder of no entry."""
    return use(folder) if folder.parent == _root() else None


def find(key: str) -> Path | None:
    """The folder of the entry, if it is there and undamaged."""
    entry = _root() / key
    if not _is_whole(entry):
        return None
    with suppress(OSError):
        os.utime(entry / MANIFEST)  # it was used
    return entry


@contextmanager
def made(key: str | None, fill: Callable[[Path], None]) -> Iterator[Path]:
    """The folder of a new entry that `fill` has written; without a key, or where that fails, a temporary one."""
    with ExitStack() as stack:
        yield (_made_in_cache(key, fill, stack) if key else None) or _made_for_now(fill, stack)


def _made_in_cache(key: str, fill: Callable[[Path], None], stack: ExitStack) -> Path | None:
    """None where the cache cannot be written to. An entry that is not worth keeping goes when `stack` is closed."""
    from filelock import FileLock  # takes longer to import than an entry to find

    root = _root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".", dir=root)))
        if used := use(folder):
            stack.enter_context(used)
        unfinished = folder / key
        unfinished.mkdir()
        fill(unfinished)
        if not LEAST_BYTES <= _size(unfinished) <= MOST_BYTES:
            return unfinished
        (unfinished / MANIFEST).write_text(json.dumps(tree_hashes(unfinished)))
        entry = root / key
        with FileLock(root / ".lock", timeout=_PATIENCE_S):
            if not _is_whole(entry):  # another process may have made it meanwhile
                shutil.rmtree(entry, ignore_errors=True)
                os.replace(unfinished, entry)
            _evict(root, entry)
        return entry
    except OSError:
        return None


def _made_for_now(fill: Callable[[Path], None], stack: ExitStack) -> Path:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    fill(folder)
    return folder


def _evict(root: Path, newest: Path) -> None:
    """Remove what is beyond MOST_BYTES, and what processes that were killed left unfinished."""
    folders = [folder for folder in root.iterdir() if folder.is_dir() and folder != newest]
    for folder in folders:
        if folder.name.startswith(".") and time.time() - _last_used(folder) > _DAY_S:
            _removed(folder)
    size = _size(newest)
    finished = [folder for folder in folders if not folder.name.startswith(".")]
    for entry in sorted(finished, key=_last_used, reverse=True):
        size += _size(entry)
        if size > MOST_BYTES:
            _removed(entry)


def _removed(folder: Path) -> None:
    """Unless a process uses it, or the system refuses."""
    with suppress(OSError):
        remove(folder)


def _last_used(folder: Path) -> float:
    manifest = folder / MANIFEST
    return (manifest if manifest.is_file() else folder).stat().st_mtime


def _is_whole(entry: Path) -> bool:
    try:
        hashes = json.loads((entry / MANIFEST).read_bytes())
        return bool(hashes) and are_there(entry, hashes)
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _root() -> Path:
    return cache_folder() / "portable"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@functools.cache
def code_hashes() -> dict[str, str]:
    """SHA-256 of the modules of this back end and of what reads a package for it, by their place in the project."""
    here = Path(__file__).parent
    rooms = here.parents[1]
    found = (path for folder in (here, rooms / "aimodel", rooms / "mlprogram") for path in folder.rglob("*.py"))
    modules = sorted(path for path in found if not is_foreign(path.name))
    return {path.relative_to(rooms).as_posix(): file_hash(path) for path in modules}
