"""One split of a data set: labels, ids, images decoded one at a time, and a fingerprint of the content.

Opening a split decodes nothing, so that 50,000 files cost a listing. It must not know where images come from: a source
hands them over. It must not import torch, nor let PIL make up the missing part of a truncated image.
"""

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import PIL
import PIL.Image
from numpy.typing import NDArray

from harness.cache_folder import cache_folder
from harness.errors import DataError

Progress = Callable[[int, int], None]
T = TypeVar("T")

# What PIL raises for damaged files; anything else is a bug here and keeps its traceback.
_BAD_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, PIL.Image.DecompressionBombError)

# Tasks this small keep threads evenly busy and still hide the cost of a hand-over behind tiny images.
_CHUNK = 16


class ImageSource(Protocol):
    """Where a split's images come from, by position."""

    def open(self, index: int) -> PIL.Image.Image:
        """The image, not necessarily decoded; PIL's or the file system's error where it is damaged or gone."""
        ...

    def digests(self, progress: Progress | None) -> list[str]:
        """SHA-256 (hex) of every image's content as stored, in order."""
        ...


@dataclass(eq=False)
class Split:
    """One split. `labels` is int64 [N] and indexes `classes`; `ids` are N names that hold on every machine."""

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    source: ImageSource = field(repr=False)
    _fingerprint: str | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> PIL.Image.Image:
        """The decoded RGB image; DataError naming it where it is truncated, unreadable or gone.

        EXIF orientation is not applied: torchvision's reference evaluation does not apply it either.
        """
        try:
            image = self.source.open(index)
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
        except _BAD_IMAGE as error:
            raise self._bad_image(index, error) from error

    def shorter_side(self, index: int) -> int:
        """The shorter side in pixels, from the header alone; DataError as for `image`."""
        try:
            return min(self.source.open(index).size)
        except _BAD_IMAGE as error:
            raise self._bad_image(index, error) from error

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over classes, ids, labels and every image's content: the same on every machine."""
        return self.compute_fingerprint()

    def compute_fingerprint(self, progress: Progress | None = None) -> str:
        """The fingerprint, calling `progress(done, total)` from this thread while images are hashed."""
        if self._fingerprint is None:
            digests = self.source.digests(progress)
            images = list(zip(self.ids, self.labels.tolist(), digests, strict=True))
            # JSON frames every string, so that no two different splits spell the same bytes.
            text = json.dumps({"classes": self.classes, "images": images}, separators=(",", ":"))
            self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        return self._fingerprint

    def _bad_image(self, index: int, error: BaseException) -> DataError:
        return DataError(f"cannot decode {self.ids[index]}: {_reason(error)}; remove it or use --skip-bad-images")


@dataclass(frozen=True)
class DataSet:
    """A data set as opened from `spec`. `train` is None where there is only one split.

    `photographs` says whether fine-tuning may flip and crop the images.
    """

    spec: str
    classes: tuple[str, ...]
    train: Split | None
    val: Split
    image_size: int
    photographs: bool


def default_workers() -> int:
    """Threads for decoding and hashing: one a core; beyond eight the disk is what is waited for."""
    return min(8, os.cpu_count() or 1)


def map_in_threads(
    function: Callable[[int], T], count: int, workers: int | None = None, progress: Progress | None = None
) -> list[T]:
    """`function` of 0 .. count - 1, in order; the first error cancels what has not started."""
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    results: list[T] = []
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        for part in pool.map(lambda chunk: [function(index) for index in chunk], chunks):
            results.extend(part)
            if progress is not None:
                progress(len(results), count)
    return results


class DigestCache:
    """SHA-256 of the files beneath one folder, remembered between runs by (path, size, mtime_ns).

    It is only ever a saving: a damaged cache is ignored, and one that cannot be written is not.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        name = hashlib.sha256(os.fsencode(self._root)).hexdigest()[:16]
        self._path = cache_folder() / "digests" / f"{name}.json"
        self._known = self._read()
        self._seen: dict[str, tuple[int, int, str]] = {}

    def digest(self, file: str) -> str:
        """SHA-256 (hex) of the file at this path relative to the folder; OSError where it cannot be read."""
        path = self._root / file
        stat = path.stat()  # before reading: a file changed meanwhile then misses the cache next time
        known = self._known.get(file)
        if known is None or known[:2] != (stat.st_size, stat.st_mtime_ns):
            known = (stat.st_size, stat.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        self._seen[file] = known
        return known[2]

    def save(self) -> None:
        """Write what was seen, under a temporary name first so that a reader never meets half a cache."""
        if self._seen == self._known:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.stem, suffix=".tmp")
            try:
                with os.fdopen(handle, "w") as stream:
                    json.dump({"root": str(self._root), "files": self._seen}, stream)
                os.replace(temporary, self._path)
            finally:
                Path(temporary).unlink(missing_ok=True)

    def _read(self) -> dict[str, tuple[int, int, str]]:
        # AttributeError, TypeError and ValueError: JSON of another shape, or no JSON at all.
        with suppress(OSError, AttributeError, KeyError, TypeError, ValueError):
            content = json.loads(self._path.read_bytes())
            if content["root"] == str(self._root):
                return {file: _entry(*entry) for file, entry in content["files"].items()}
        return {}


def _entry(size: int, mtime_ns: int, digest: str) -> tuple[int, int, str]:
    if len(bytes.fromhex(digest)) != hashlib.sha256().digest_size:
        raise ValueError(f"not a SHA-256: {digest}")
    return int(size), int(mtime_ns), digest


def _reason(error: BaseException) -> str:
    """One line without addresses in memory or paths of this machine."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
