"""From a split to arrays: decoding in threads, and fine-tuning's augmentation.

Arrays leave here as uint8 [N, H, W, 3]; mean and standard deviation belong to the model. Threads are enough because PIL
releases the interpreter lock while it decodes and resizes. This module must not import torch.
"""

import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data.split import Split, default_workers, map_in_threads
from coreml_prune_bench.data.transform import BILINEAR, preprocess, to_rgb
from coreml_prune_bench.models.preprocessing import USUAL, Preprocessing

_CROP_SCALE = (0.25, 1.0)  # fraction of the image's area; gentler than 0.08, as fine-tuning is short
_CROP_RATIO = (3 / 4, 4 / 3)  # width : height
_CROP_ATTEMPTS = 10

# Batches that may lie decoded or in decoding while the caller works on one.
_BATCHES_AHEAD = 2


_LARGE_PIXELS = 1 << 25
"""A larger image takes its turn: Pillow opens those of up to 179 million pixels, 0.7 GB, from files of 200 kB."""
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, eq=False)
class Batch:
    """Consecutive images of a split: `indices` int64 [n], `images` uint8 [n, H, W, 3], `bad` the ids left out."""

    indices: NDArray[np.int64]
    images: NDArray[np.uint8]
    bad: tuple[str, ...]


def augment(image: PIL.Image.Image, image_size: int, seed: tuple[int, ...]) -> NDArray[np.uint8]:
    """A random view of a photograph, uint8 [image_size, image_size, 3]: torchvision's RandomResizedCrop and a flip.

    Everything random comes from `seed`, so that the same (seed, epoch, image) gives the same view wherever the image
    stands in the epoch and whichever thread makes it.
    """
    draw = np.random.default_rng(seed)
    rgb = to_rgb(image)
    # Crop, then resize: resizing with a box would let the filter look at pixels outside the crop.
    view = rgb.crop(_random_crop(rgb.width, rgb.height, draw)).resize((image_size, image_size), BILINEAR)
    if draw.random() < 0.5:
        view = view.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(view)


def load_images(
    split: Split,
    indices: Sequence[int] | NDArray[np.int64],
    image_size: int,
    asked: Preprocessing = USUAL,
    *,
    workers: int | None = None,
) -> NDArray[np.uint8]:
    """The preprocessed images at `indices`, uint8 [N, image_size, image_size, 3]; DataError for a bad image."""
    images = np.empty((len(indices), image_size, image_size, 3), np.uint8)

    def fill(position: int) -> None:
        images[position] = _prepared(split, int(indices[position]), image_size, asked)

    map_in_threads(fill, len(indices), workers)
    return images


def iterate(
    split: Split,
    image_size: int,
    asked: Preprocessing = USUAL,
    *,
    batch_size: int,
    among: range | None = None,
    skip_bad: bool = False,
    workers: int | None = None,
) -> Iterator[Batch]:
    """The whole split in order, or its images at the positions `among`, decoded ahead of the caller by a few threads.

    Memory is bounded: at most two batches wait beside the one handed out. A bad image raises its DataError, or with
    `skip_bad` is left out of its batch and named in `bad`; the batch is then smaller, and has n = 0 where all are bad.
    """
    chosen = spans(among or range(len(split)), batch_size)
    return decode(split, image_size, chosen, asked, skip_bad=skip_bad, workers=workers)


def spans(among: range, size: int) -> list[range]:
    """Positions in consecutive ranges of `size`, the last one shorter if need be."""
    if size < 1:
        raise ValueError(f"expected a size of at least 1, not {size}")
    return [range(start, min(start + size, among.stop)) for start in range(among.start, among.stop, size)]


def decode(
    split: Split,
    image_size: int,
    spans: Sequence[range],
    asked: Preprocessing = USUAL,
    *,
    skip_bad: bool,
    workers: int | None = None,
) -> Iterator[Batch]:
    """`iterate` over chosen ranges of a split, a batch each."""

    ahead: deque[tuple[range, list[Future[NDArray[np.uint8]]]]] = deque()
    pool = ThreadPoolExecutor(workers or default_workers())
    try:
        for span in spans:
            ahead.append((span, [pool.submit(_prepared, split, index, image_size, asked) for index in span]))
            if len(ahead) > _BATCHES_AHEAD:
                yield _collect(split, image_size, *ahead.popleft(), skip_bad=skip_bad)
        while ahead:
            yield _collect(split, image_size, *ahead.popleft(), skip_bad=skip_bad)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepared(split: Split, index: int, image_size: int, asked: Preprocessing) -> NDArray[np.uint8]:
    with split.reading(index):
        image = split.source.open(index)
        with _ONE_AT_A_TIME if image.width * image.height > _LARGE_PIXELS else nullcontext():
            return preprocess(image, image_size, asked)


def _collect(
    split: Split, image_size: int, span: range, futures: list[Future[NDArray[np.uint8]]], *, skip_bad: bool
) -> Batch:
    indices: list[int] = []
    images: list[NDArray[np.uint8]] = []
    bad: list[str] = []
    for index, future in zip(span, futures, strict=True):
        try:
            images.append(future.result())
            indices.append(index)
        except DataError:
            if not skip_bad:
                raise
            bad.append(split.ids[index])
    # reshape gives an empty batch its H, W and 3 too
    stacked = np.array(images, np.uint8).reshape(-1, image_size, image_size, 3)
    return Batch(np.array(indices, np.int64), stacked, tuple(bad))


def _random_crop(width: int, height: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right, bottom, as torchvision's RandomResizedCrop draws them."""
    for _ in range(_CROP_ATTEMPTS):
        area = width * height * draw.uniform(*_CROP_SCALE)
        ratio = math.exp(draw.uniform(math.log(_CROP_RATIO[0]), math.log(_CROP_RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(draw.integers(width - w + 1)), int(draw.integers(height - h + 1))
            return left, top, left + w, top + h
    # No crop fits a very long image: the largest central one whose ratio is allowed.
    w = min(width, round(height * _CROP_RATIO[1]))
    h = min(height, round(width / _CROP_RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
