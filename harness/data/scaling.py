"""A part of a scaled image without the rest of it, bit for bit what Pillow makes: `resize`, then `crop`.

An image of one by 60,000 pixels, 312 bytes, has 15 million rows once it is 256 wide, of which 224 are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from coreml_prune_bench.models.preprocessing import Interpolation

_MOST_PIXELS = 1 << 24
"""Of a scaled image that Pillow makes whole, which is the quicker way."""

_PRECISION = 22
"""Bits behind the point of Pillow's weights for images of 8 bits: PRECISION_BITS in its Resample.c."""

_KNOWS_TALL = int(PIL.__version__.partition(".")[0]) >= 13
"""Whether Pillow scales some images down before across (python-pillow/Pillow#9549): what is between is rounded."""


class _Filter(NamedTuple):
    """pillow: its number. support: how far it reaches, in new pixels. weights: by distance, of Pillow's Resample.c."""

    pillow: PIL.Image.Resampling
    support: float
    weights: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0.0)


_FILTERS: dict[Interpolation, _Filter] = {
    "bilinear": _Filter(PIL.Image.Resampling.BILINEAR, 1.0, _triangle),
    "bicubic": _Filter(PIL.Image.Resampling.BICUBIC, 2.0, _cubic),
    "lanczos": _Filter(PIL.Image.Resampling.LANCZOS, 3.0, _lanczos),
}


def scaled_part(
    image: PIL.Image.Image,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    interpolation: Interpolation = "bilinear",
) -> PIL.Image.Image:
    """The part `box` (left, top, right, bottom) of `image` scaled to `size` (width, height), with antialias.

    image: of mode RGB, L or F. The box lies inside the scaled image.
    """
    chosen = _FILTERS[interpolation]
    if size[0] * size[1] <= _MOST_PIXELS:
        return image.resize(size, chosen.pillow).crop(box)
    across = _axis(image.width, size[0], box[0], box[2], chosen)
    down = _axis(image.height, size[1], box[1], box[3], chosen)
    window = image.crop((across.first, down.first, across.last, down.last))
    shrinks_down = image.height - size[1]
    tall = _KNOWS_TALL and shrinks_down > 0 and shrinks_down > 2 * (image.width - size[0])
    pixels = np.asarray(window)
    for axis in (0, 1) if tall else (1, 0):
        pixels = _summed(pixels, axis, (down, across)[axis])
    return PIL.Image.fromarray(pixels)


@dataclass(frozen=True, eq=False)
class _Axis:
    """How an axis of the part is made of pixels `first` to `last` of the image.

    begins [n]: the first pixel that each of the n new ones is made of, counted from `first`; weights [n, taps]: of
    those from there, None where the axis is not scaled.
    """

    first: int
    last: int
    begins: NDArray[np.int64]
    weights: NDArray[np.float64] | None


def _axis(size: int, scaled: int, start: int, stop: int, chosen: _Filter) -> _Axis:
    """For the new pixels `start` to `stop` of so many.

    `precompute_coeffs` of Pillow's Resample.c: at the edges what lies outside is left out, and the rest adds up to 1.
    """
    if size == scaled:
        return _Axis(start, stop, np.arange(stop - start), None)
    scale = size / scaled
    stretch = max(scale, 1.0)
    support = chosen.support * stretch
    centers = (np.arange(start, stop) + 0.5) * scale
    begins = np.maximum(np.trunc(centers - support + 0.5), 0).astype(np.int64)
    counts = np.minimum(np.trunc(centers + support + 0.5), size).astype(np.int64) - begins
    taps = np.arange(counts.max())
    distances = (taps + begins[:, np.newaxis] - centers[:, np.newaxis] + 0.5) * (1.0 / stretch)
    weights = np.where(taps < counts[:, np.newaxis], chosen.weights(distances), 0.0)
    total = np.zeros(len(weights))
    for tap in taps:  # one after the other, as Pillow adds them up
        total += weights[:, tap]
    first = int(begins.min())
    return _Axis(first, int((begins + counts).max()), begins - first, weights / total[:, np.newaxis])


def _summed(pixels: NDArray, axis: int, made: _Axis) -> NDArray:
    """uint8 [H, W] or [H, W, C], or Float32 [H, W], scaled along `axis`, rounded as Pillow does after each axis."""
    if made.weights is None:
        return pixels
    whole = pixels.dtype == np.uint8
    weights = made.weights
    if whole:
        weights = np.trunc(weights * (1 << _PRECISION) + np.copysign(0.5, weights)).astype(np.int64)
    pixels = np.moveaxis(pixels, axis, 0)
    half = 1 << (_PRECISION - 1)
    total = np.full((len(weights), *pixels.shape[1:]), half if whole else 0, weights.dtype)
    for tap in range(weights.shape[1]):
        source = pixels[np.minimum(made.begins + tap, len(pixels) - 1)]  # beyond the last one its weight is 0
        total += source * weights[:, tap].reshape(-1, *[1] * (pixels.ndim - 1))
    result = np.clip(total >> _PRECISION, 0, 255).astype(np.uint8) if whole else total.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(result, 0, axis))
