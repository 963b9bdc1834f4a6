"""How prepared images become what a package takes: pixels for an image input, numbers for an array.

What nobody has said and the package does not tell is refused, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coreml_prune_bench.aimodel.programs import read_program
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.normalization import Normalization, normalization_of
from coreml_prune_bench.mlprogram.program import Feature
from coreml_prune_bench.models.preprocessing import Preprocessing

_MOST_PIXELS_A_SIDE = 4096
_EXPECTED = "such as [1, 3, 224, 224] or [1, 224, 224, 3]"
_OPTIONS = (
    "say it with --scale (1: pixels from 0 to 255; 0.00392157: from 0 to 1), --mean and --std "
    "(ImageNet's: --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225)"
)


@dataclass(frozen=True, eq=False)
class Feed:
    """Of one input. layout: None for an image. factor, summand: float32 [channels] or [1]; None: pixels as they are.

    asked: how images are prepared, and what is known of numbers in the end. notes: what a reader has to know.
    """

    feature: Feature
    image_size: int
    asked: Preprocessing
    layout: str | None = None
    factor: NDArray[np.float32] | None = None
    summand: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def channels(self) -> int:
        return _channels(self.feature, self.layout)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Of uint8 [n, H, W, 3], what `predict_batch` takes for this input."""
        if self.channels == 1:
            images = _gray(images)
        elif self.layout and self.layout.endswith("BGR"):
            images = images[..., ::-1]
        if self.factor is None or self.summand is None:
            return images
        numbers = images.astype(np.float32) * self.factor + self.summand
        if self.layout and self.layout.startswith("NCHW"):
            numbers = np.ascontiguousarray(numbers.transpose(0, 3, 1, 2))  # [n, C, H, W]
        kind = np.dtype(self.feature.dtype)
        if kind.kind in "iu" and np.array_equal(numbers, np.rint(numbers)):
            return numbers.astype(kind)
        return numbers.astype(np.float16) if self.layout is None else numbers  # GRAYSCALE_FLOAT16


def feed_of(package: Path, feature: Feature, asked: Preprocessing) -> Feed:
    """How the images of a split come to be `feature`, the input of a package.

    Raises PackageError where it takes no square images of 1 or 3 channels, where `asked` does not fit it, and where
    nothing says what numbers pixels become.
    """
    size, layout = _size_and_layout(package, feature, asked)
    if asked.crop == "center" and asked.shorter_side(size) < size:
        raise PackageError(f"{package}: takes {size} pixels a side, of images resized to {asked.resize}: expected more")
    numbers = feature.kind == "array" or feature.color_space == "GRAYSCALE_FLOAT16"
    found = normalization_of(read_program(package), feature.name) if numbers else None
    if not numbers:
        note = (
            f"warning: {package} takes pixels as an image, and normalizes them itself where it has to: --scale, --mean "
            "and --std are not applied to it"
        )
        return Feed(feature, size, asked.view, notes=(note,) if asked.normalizes else ())
    notes: tuple[str, ...] = ()
    if asked.normalizes:
        notes = _doubt(package, asked, found)
    elif found:
        asked = asked.model_copy(update={"scale": found.highest / 255})
        text = "0 to 255" if found.highest == 255 else "0 to 1"
        notes = (f"{package}: input {feature.name!r} is fed pixels from {text}, which its program normalizes",)
    else:
        raise PackageError(
            f"{package}: input {feature.name!r} takes numbers, and nothing says which ones pixels become; {_OPTIONS}"
        )
    factor, summand = (np.array(values, np.float32) for values in asked.affine())
    channels = _channels(feature, layout)
    if factor.size not in (1, channels):
        raise PackageError(f"{package}: input {feature.name!r} has {channels} channel; --mean and --std have 3 numbers")
    return Feed(feature, size, asked, layout, factor, summand, notes)


def _size_and_layout(package: Path, feature: Feature, asked: Preprocessing) -> tuple[int, str | None]:
    shape, name = feature.default_shape, feature.name
    if feature.kind == "image":
        height, width, _ = shape
        layout = None
    else:
        found = _layouts(shape)
        if asked.layout:
            found = {axes: sides for axes, sides in found.items() if asked.layout.startswith(axes)}
        if not found:
            what = f"as {asked.layout}" if asked.layout else "an image"
            raise PackageError(
                f"{package}: input {name!r} has shape {list(shape)}, which is not {what} of 1 or 3 channels: expected "
                f"one {_EXPECTED}"
            )
        axes, (height, width) = next(iter(found.items()))
        layout = asked.layout or axes
    if height != width:
        raise PackageError(f"{package}: expected a square image, not {height} x {width} (input {name!r})")
    if height > _MOST_PIXELS_A_SIDE:
        raise PackageError(
            f"{package}: takes images of {height:,} pixels a side, expected at most {_MOST_PIXELS_A_SIDE:,}"
        )
    return height, layout


def _layouts(shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Height and width by the order of axes that a shape may have; square ones first."""
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 3:
        return {}
    found = {}
    if shape[0] in (1, 3):
        found["NCHW"] = (shape[1], shape[2])
    if shape[2] in (1, 3):
        found["NHWC"] = (shape[0], shape[1])
    return dict(sorted(found.items(), key=lambda one: one[1][0] != one[1][1]))


def _channels(feature: Feature, layout: str | None) -> int:
    return feature.default_shape[-3 if layout and layout.startswith("NCHW") else -1]


def _gray(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, H, W, 3] as [n, H, W, 1], to the bit what Pillow's `convert("L")` makes of each (ITU-R 601-2)."""
    red, green, blue = (images[..., channel].astype(np.uint32) for channel in range(3))
    gray = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return gray.astype(np.uint8)[..., np.newaxis]


def _doubt(package: Path, asked: Preprocessing, found: Normalization | None) -> tuple[str, ...]:
    """A line where the program seems to expect other numbers than it is fed."""
    if found is None:
        return ()
    factor, summand = asked.affine()
    if found.makes_normal(np.array(factor), np.array(summand)):
        return ()
    expected = f"its program normalizes what it takes, and seems to expect pixels from 0 to {found.highest}"
    if any(summand) or not all(found.highest / 2 <= 255 * one <= 2 * found.highest for one in factor):
        right = "1" if found.highest == 255 else f"{1 / 255:.6g}"
        return (
            f"warning: {package} may be normalized twice: {expected}; it is fed {asked.in_words()}; "
            f"--scale {right} alone would feed that",
        )
    return ()
