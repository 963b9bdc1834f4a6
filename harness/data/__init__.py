"""Data sets: open one by its spec, read its images as arrays, fingerprint its content.

A spec is `digits`, `imagefolder:PATH`, `imagenet:PATH`, `hf:NAME` or `hf:PATH`. Opening decodes nothing. This package
must not import torch, and imports scikit-learn, scipy and `datasets` only when a spec needs them.
"""

import hashlib
import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data.folders import open_folder
from coreml_prune_bench.data.hub import open_hub
from coreml_prune_bench.data.imagenet_files import open_imagenet
from coreml_prune_bench.data.images import (
    Batch,
    augment,
    iterate,
    load_images,
)
from coreml_prune_bench.data.split import DataSet, Progress, Split
from coreml_prune_bench.data.transform import preprocess

__all__ = [
    "Batch",
    "DataSet",
    "Progress",
    "Split",
    "augment",
    "iterate",
    "load_images",
    "open_data",
    "preprocess",
]

_DIGITS_SIZE = 32
_DIGITS_SEED = 0
_DIGITS_VAL_PER_CLASS = 40

_IMAGENET_SIZE = 224
_PROBES = 32


def open_data(spec: str) -> DataSet:
    """The data set that `spec` names; DataError with one line where it is unknown, missing or unusable."""
    kind, _, place = spec.partition(":")
    if spec == "digits":
        train, val = _open_digits()
        return DataSet(spec, val.classes, lambda: train, val, _DIGITS_SIZE, photographs=False)
    if kind not in ("imagefolder", "imagenet", "hf") or not place:
        raise DataError(
            f"unknown data set {spec!r}: expected digits, imagefolder:PATH, imagenet:PATH, hf:NAME or hf:PATH"
        )
    if kind == "hf":
        open_train, val = open_hub(place)
    else:
        open_train, val = (open_folder if kind == "imagefolder" else open_imagenet)(Path(place).expanduser())
    return DataSet(spec, val.classes, open_train, val, _image_size(val), photographs=True)


def _image_size(val: Split) -> int:
    """224, or the median shorter side of evenly spaced images where that is smaller; a suite may say another."""
    sides: list[int] = []
    for index in np.linspace(0, len(val) - 1, min(_PROBES, len(val))).astype(int):
        with suppress(DataError):  # one bad image is for whoever decodes it, with --skip-bad-images at hand
            sides.append(val.shorter_side(int(index)))
    return min(_IMAGENET_SIZE, statistics.median_low(sides)) if sides else _IMAGENET_SIZE


@dataclass(frozen=True)
class _ArraySource:
    """Images held in memory, uint8 [N, H, W, 3]."""

    images: NDArray[np.uint8]

    def open(self, index: int) -> PIL.Image.Image:
        return PIL.Image.fromarray(self.images[index])

    def digests(self, progress: Progress | None) -> list[str]:
        digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in self.images]
        if progress is not None:
            progress(len(digests), len(digests))
        return digests


def _open_digits() -> tuple[Split, Split]:
    """scikit-learn's 1,797 digits: 400 for val, 40 a class, and 1,397 for train, both in scikit-learn's order."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    labels = np.asarray(digits.target, np.int64)
    # RandomState, because numpy promises that its stream never changes (NEP 19): this split is part of results.
    draw = np.random.RandomState(_DIGITS_SEED)
    chosen = [draw.permutation(np.flatnonzero(labels == label))[:_DIGITS_VAL_PER_CLASS] for label in range(10)]
    in_val = np.isin(np.arange(len(labels)), np.concatenate(chosen))
    # float [N, 8, 8] of 0..16 -> uint8 [N, 32, 32, 3] of 0..255
    images = np.stack([_enlarge(np.rint(image * (255 / 16)).astype(np.uint8)) for image in digits.images])

    def split(name: str, members: NDArray[np.bool_]) -> Split:
        ids = tuple(f"digits[{index}]" for index in np.flatnonzero(members))
        return Split(name, tuple("0123456789"), labels[members], ids, _ArraySource(images[members]))

    return split("train", ~in_val), split("val", in_val)


def _enlarge(digit: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (_DIGITS_SIZE, _DIGITS_SIZE)
    return np.array(PIL.Image.fromarray(digit).resize(size, PIL.Image.Resampling.BILINEAR).convert("RGB"))
