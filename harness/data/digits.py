"""`digits`: the handwritten digits that come with scikit-learn, enlarged to 32x32."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from coreml_prune_bench.data.split import Opened, Progress, Split

_SIZE = 32
_SEED = 0
_VAL_PER_CLASS = 40


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


def open_digits() -> Opened:
    """scikit-learn's 1,797 digits: 400 for val, 40 a class, and 1,397 for train, both in scikit-learn's order."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    labels = np.asarray(digits.target, np.int64)
    # RandomState, because numpy promises that its stream never changes (NEP 19): this split is part of results.
    draw = np.random.RandomState(_SEED)
    chosen = [draw.permutation(np.flatnonzero(labels == label))[:_VAL_PER_CLASS] for label in range(10)]
    in_val = np.isin(np.arange(len(labels)), np.concatenate(chosen))
    # float [N, 8, 8] of 0..16 -> uint8 [N, 32, 32, 3] of 0..255
    images = np.stack([_enlarge(np.rint(image * (255 / 16)).astype(np.uint8)) for image in digits.images])

    def split(name: str, members: NDArray[np.bool_]) -> Split:
        ids = tuple(f"digits[{index}]" for index in np.flatnonzero(members))
        return Split(name, tuple("0123456789"), labels[members], ids, _ArraySource(images[members]))

    train = split("train", ~in_val)
    return Opened(lambda: train, split("val", in_val), photographs=False, image_size=_SIZE)


def _enlarge(digit: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (_SIZE, _SIZE)
    return np.array(PIL.Image.fromarray(digit).resize(size, PIL.Image.Resampling.BILINEAR).convert("RGB"))
