"""One split of a data set: labels, ids, images decoded one at a time, and a fingerprint of the content.

Opening a split decodes nothing, so that 50,000 files cost a listing. It must not know where images come from: a source
hands them over. It must not import torch, nor let PIL make up the missing part of a truncated image.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import PIL
import PIL.Image
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data.transform import to_rgb
from coreml_prune_bench.models.preprocessing import USUAL, Preprocessing
from coreml_prune_bench.models.processors import processors

Progress = Callable[[int, int], None]
T = TypeVar("T")

UNREADABLE = hashlib.sha256(b"unreadable").hexdigest()
"""Stands for the content of an image that cannot be read: it is a bad one, as one that does not decode."""

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
    """One split. `labels` is int64 [N] and indexes `classes`; `ids` are N names that hold on every machine.

    notes: what a reader has to know of it, such as files that were left out, a line each.
    """

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    source: ImageSource = field(repr=False)
    notes: tuple[str, ...] = ()
    _fingerprint: str | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> PIL.Image.Image:
        """The decoded RGB image; DataError naming it where it is truncated, unreadable or gone."""
        with self.reading(index):
            return to_rgb(self.source.open(index))

    def shorter_side(self, index: int) -> int:
        """The shorter side in pixels, from the header alone; DataError as for `image`."""
        with self.reading(index):
            return min(self.source.open(index).size)

    @contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """Inside, what is raised over the image becomes a DataError that names it.

        Whatever that is: Pillow's readers raise errors of every kind for files that they were not made for, and there
        are images that no memory holds.
        """
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"cannot decode {self.ids[index]}: {_reason(error)}; remove it or use --skip-bad-images"
            ) from error

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


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set as opened from `spec`. `photographs` says whether fine-tuning may flip and crop the images.

    `open_train` opens the train split; None where there is only one split. revision: the commit of data from a hub.
    place: stands for the folder or file that the spec names, however it is spelled; None where it names none.
    image_size, preprocessing: how a network takes the images.
    """

    spec: str
    classes: tuple[str, ...]
    open_train: Callable[[], Split | None] | None
    val: Split
    image_size: int
    photographs: bool
    revision: str | None = None
    place: str | None = None
    preprocessing: Preprocessing = USUAL

    @cached_property
    def train(self) -> Split | None:
        """Opened when first asked for: listing, let alone downloading, a million images is for who trains on them."""
        split = self.open_train() if self.open_train else None
        tell(split.notes if split else ())
        return split


@dataclass(frozen=True)
class Opened:
    """What a source opens. photographs, revision, image_size: as a DataSet's; None: 224, or less for smaller images."""

    open_train: Callable[[], Split] | None
    val: Split
    photographs: bool = True
    image_size: int | None = None
    revision: str | None = None


def tell(notes: Iterable[str]) -> None:
    """Say a split's notes on standard error: whoever measures on it has to know them."""
    for line in notes:
        from coreml_prune_bench.core.progress import warn  # only where there is something to say

        warn(line)


def default_workers() -> int:
    """Threads for decoding and hashing: one a processor; beyond eight the disk is what is waited for."""
    return min(8, len(processors()))


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


def _reason(error: BaseException) -> str:
    """One line without addresses in memory or paths of this machine."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    return " ".join(str(error).split()) or type(error).__name__
