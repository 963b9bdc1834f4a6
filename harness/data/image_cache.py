"""Decode once: the images of a split as evaluation takes them, prepared one time and read from a file ever after.

    CACHE/images/<split>-<size>/pixels   uint8 [N, size, size, 3]; <split>-<size>-<hash> for another view than usual
    CACHE/images/<split>-<size>/blocks   JSON lines: what the pixels are of, then each finished block of them

- Labels are not kept: they come from the split, whose fingerprint the folder is named by.
- Pixels are written block by block, and a block is listed once its pixels are written: a build that was killed goes
  on with what is not listed.
- A block is hashed whenever it is read, which takes a tenth of a millisecond an image. One that is not what was written
  is prepared again.
- A block is mapped while it is in use and no longer, so that memory does not grow with the data set. Nothing is written
  through a map: a full disk shall be an error and not a signal.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import PIL.features
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from coreml_prune_bench.core.cache_folder import CACHE_VARIABLE, cache_folder, use_new
from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.core.keys import code_version, key_of, package_versions
from coreml_prune_bench.data.images import Batch, decode, spans
from coreml_prune_bench.data.split import Progress, Split
from coreml_prune_bench.models.preprocessing import USUAL, Preprocessing

BLOCK_IMAGES = 64

LEAST_BYTES = 8 << 20
"""Fewer are decoded about as quickly as they are hashed and read."""

_MOST_BLOCK_BYTES = 512 << 20
_FORMAT = 1
_GIVE_UP = f"name another folder with {CACHE_VARIABLE}, or use --no-image-cache"


def is_worth_keeping(split: Split, image_size: int) -> bool:
    """Whether prepared images are many or large enough for a file of their own, and a block of them fits in memory."""
    block_bytes = min(len(split), BLOCK_IMAGES) * _image_bytes(image_size)
    return len(split) * _image_bytes(image_size) >= LEAST_BYTES and block_bytes <= _MOST_BLOCK_BYTES


@dataclass(frozen=True)
class _Block:
    """A finished block: SHA-256 (hex) of its pixels, and the positions in the split of images that do not decode."""

    number: int
    sha256: str
    bad: tuple[int, ...]


class ImageCache:
    """The prepared images of `split`, complete once `prepare` has returned. To be used in a `with` statement.

    asked: of it, the view counts. among: only the images at these positions, whole blocks; the file has room for all,
    and other parts find it. skip_bad: images that do not decode are left out, as `iterate` does; else they raise
    their DataError. say: told in one line what is about to take long, and what was found damaged.
    """

    def __init__(
        self,
        split: Split,
        image_size: int,
        asked: Preprocessing = USUAL,
        *,
        among: range | None = None,
        skip_bad: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._split = split
        self._image_size = image_size
        self._asked = asked.view
        self._skip_bad = skip_bad
        self._say = say
        self._spans = spans(range(len(split)), BLOCK_IMAGES)
        self._among = among or range(len(split))
        if self._among.start % BLOCK_IMAGES:
            raise ValueError(f"expected a part that begins with a block of {BLOCK_IMAGES}, not at {self._among.start}")
        self._numbers = range(self._among.start // BLOCK_IMAGES, -(-self._among.stop // BLOCK_IMAGES))
        self._shape = (len(split), image_size, image_size, 3)
        self._about = {
            "format": _FORMAT,
            "split": split.fingerprint,
            "shape": list(self._shape),
            "block_images": BLOCK_IMAGES,
            "transform": transform_version(),
        }
        name = f"{split.fingerprint[:16]}-{image_size}"
        if changes := self._asked.changes():
            self._about["view"] = changes
            name += f"-{key_of(changes)[:8]}"
        self.folder = cache_folder() / "images" / name
        self._lock = FileLock(self.folder.with_name(f".{self.folder.name}.lock"))
        self._blocks: dict[int, _Block] = {}

    def __enter__(self) -> Self:
        with _explained(self.folder):
            self._use = use_new(self.folder)
            with self._locked():
                self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pixels.close()
        self._list.close()
        if self._use is not None:
            self._use.end()

    def prepare(self, progress: Progress | None = None) -> None:
        """Decode what is not there yet; `progress(done, total)` counts images.

        DataError where an image does not decode, unless it is to be skipped, and where the disk has no room.
        """
        with _explained(self.folder), self._locked():
            self._blocks = self._listed()
            self._retry_bad()
            missing = [number for number in self._numbers if number not in self._blocks]
            if not missing:
                return
            self._announce(missing)
            self._fill(missing, progress)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """What `iterate` gives, read a block ahead of the caller; arrays are not to be written to.

        DataError where a damaged block cannot be prepared again.
        """
        if BLOCK_IMAGES % batch_size:
            raise ValueError(f"expected a batch size that divides {BLOCK_IMAGES}, not {batch_size}")
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, self._numbers.start)
            for number in self._numbers:
                span, block = self._spans[number], ahead.result()
                if number + 1 in self._numbers:
                    ahead = reader.submit(self._read, number + 1)
                for start in range(0, len(span), batch_size):
                    yield self._batch(block, span, range(start, min(start + batch_size, len(span))))

    # --- reading

    def _read(self, number: int) -> NDArray[np.uint8]:
        """The pixels of a block, mapped, uint8 [n, H, W, 3]."""
        pixels = self._map(number)
        if _sha256(pixels) == self._blocks[number].sha256:
            return pixels
        self._say(f"{self.folder}: block {number} is damaged; its {len(pixels)} images are prepared again")
        with _explained(self.folder), self._locked():
            self._fill([number], None)
        pixels = self._map(number)
        if _sha256(pixels) != self._blocks[number].sha256:
            raise DataError(f"{self.folder}: block {number} does not read back as written; {_GIVE_UP}")
        return pixels

    def _map(self, number: int) -> NDArray[np.uint8]:
        span = self._spans[number]
        shape = (len(span), *self._shape[1:])
        offset = span.start * _image_bytes(self._image_size)
        return np.memmap(self._pixels, np.uint8, "r", offset=offset, shape=shape)

    def _batch(self, block: NDArray[np.uint8], span: range, part: range) -> Batch:
        """The images at the positions `part` of a block, less the bad ones."""
        bad = [position for position in self._blocks[span.start // BLOCK_IMAGES].bad if position - span.start in part]
        indices = np.setdiff1d(np.arange(span.start + part.start, span.start + part.stop), bad)
        images = block[part.start : part.stop] if not bad else block[indices - span.start]
        return Batch(indices, images, tuple(self._split.ids[position] for position in bad))

    # --- writing, under the lock

    def _open(self) -> None:
        """Open what is there, or new files where that is of something else. Old ones live on for whoever reads them."""
        pixels, listed = self.folder / "pixels", self.folder / "blocks"
        size = self._shape[0] * _image_bytes(self._image_size)
        found = _first_line(listed)
        if found != self._about or not pixels.is_file() or pixels.stat().st_size != size:
            if found is not None and found != self._about:
                self._say(f"{self.folder} holds images that were prepared differently ({_told(found)})")
            for old in (listed, pixels):  # in this order: what is listed has pixels
                old.unlink(missing_ok=True)
            with pixels.open("wb") as file:
                file.truncate(size)
            listed.write_text(json.dumps(self._about) + "\n", encoding="utf-8")
        self._pixels = pixels.open("r+b")
        self._list = listed.open("r+b")

    def _listed(self) -> dict[int, _Block]:
        """The finished blocks, by number. Half a line is what a build left that was killed."""
        self._list.seek(0)
        blocks: dict[int, _Block] = {}
        for line in self._list.read().splitlines()[1:]:
            with suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                block = _Block(int(entry["number"]), str(entry["sha256"]), tuple(map(int, entry["bad"])))
                blocks[block.number] = block
        return blocks

    def _retry_bad(self) -> None:
        """Images that did not decode may do now: a network drive that was away is back."""
        for block in [self._blocks[number] for number in self._numbers if number in self._blocks]:
            for position in block.bad:
                try:
                    self._split.image(position)
                except DataError:
                    if not self._skip_bad:
                        raise
                else:
                    self._blocks.pop(block.number, None)

    def _fill(self, numbers: Sequence[int], progress: Progress | None) -> None:
        """Prepare these blocks, and list each when it is written."""
        of = len(self._among)
        done = of - sum(len(self._spans[number]) for number in numbers)
        chosen = [self._spans[number] for number in numbers]
        decoded = decode(self._split, self._image_size, chosen, self._asked, skip_bad=self._skip_bad)
        for number, span, batch in zip(numbers, chosen, decoded, strict=True):
            pixels = np.zeros((len(span), *self._shape[1:]), np.uint8)
            pixels[batch.indices - span.start] = batch.images
            self._pixels.seek(span.start * _image_bytes(self._image_size))
            self._pixels.write(pixels.data)
            self._pixels.flush()
            bad = tuple(np.setdiff1d(span, batch.indices).tolist())
            self._add(_Block(number, _sha256(pixels), bad))
            done += len(span)
            if progress is not None:
                progress(done, of)

    def _add(self, block: _Block) -> None:
        # A line of its own even after half a line.
        self._list.seek(0, os.SEEK_END)
        self._list.write(b"\n" + json.dumps(asdict(block)).encode() + b"\n")
        self._list.flush()
        self._blocks[block.number] = block

    def _announce(self, missing: Sequence[int]) -> None:
        """Say what comes and how large it is; DataError where it does not fit on the disk."""
        images = sum(len(self._spans[number]) for number in missing)
        needed, free = images * _image_bytes(self._image_size), shutil.disk_usage(self.folder).free
        size = f"{needed / 1e9:.2f} GB"
        if needed > free:
            raise DataError(
                f"no room for {images:,} prepared images in {self.folder}: they take {size}, {free / 1e9:.2f} GB are "
                f"free; {_GIVE_UP}"
            )
        of = len(self._among)
        which = f"{images:,} images" if images == of else f"the remaining {images:,} of {of:,} images"
        self._say(f"preparing {which} once, {size} in {self.folder} (--no-image-cache does without)")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._say("another process prepares these images; waiting for it")
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()


def transform_version() -> dict[str, str]:
    """What prepared images depend on beside the split and their size."""
    return {
        "code": code_version("data.transform"),
        "libjpeg": str(PIL.features.version("jpg")),
        **package_versions("pillow"),
    }


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What the system refuses becomes an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot keep prepared images in {folder}: {error.strerror or error}; {_GIVE_UP}") from error


def _first_line(path: Path) -> dict[str, Any] | None:
    """None for no file, or half a line."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.readline())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _told(about: dict[str, Any]) -> str:
    transform = about.get("transform")
    pillow = transform.get("pillow") if isinstance(transform, dict) else None
    return f"with Pillow {pillow}" if pillow != package_versions("pillow")["pillow"] else "by another version of this"


def _image_bytes(image_size: int) -> int:
    return 3 * image_size**2


def _sha256(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.data).hexdigest()
