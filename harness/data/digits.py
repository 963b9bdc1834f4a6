"""`digits`: the handwritten digits that come with scikit-learn, enlarged to 32x32."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

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
    numbers = np.loadtxt(_file(), delimiter=",")  # a digit a row: 8 x 8 of 0..16, and which it is
    labels = numbers[:, -1].astype(np.int64)
    # RandomState, because numpy promises that its stream never changes (NEP 19): this split is part of results.
    draw = np.random.RandomState(_SEED)
    chosen = [draw.permutation(np.flatnonzero(labels == label))[:_VAL_PER_CLASS] for label in range(10)]
    in_val = np.isin(np.arange(len(labels)), np.concatenate(chosen))
    # float [N, 8, 8] of 0..16 -> uint8 [N, 32, 32, 3] of 0..255
    images = np.stack(
        [_enlarge(np.rint(image * (255 / 16)).astype(np.uint8)) for image in numbers[:, :-1].reshape(-1, 8, 8)]
    )

    def split(name: str, members: NDArray[np.bool_]) -> Split:
        ids = tuple(f"digits[{index}]" for index in np.flatnonzero(members))
        return Split(name, tuple("0123456789"), labels[members], ids, _ArraySource(images[members]))

    train = split("train", ~in_val)
    return Opened(lambda: train, split("val", in_val), photographs=False, image_size=_SIZE)


def _file() -> Path:
    """The file that scikit-learn reads them from. To import scikit-learn takes longer than all else of a second run."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"


def _enlarge(digit: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (_SIZE, _SIZE)
    return np.array(PIL.Image.fromarray(digit).resize(size, PIL.Image.Resampling.BILINEAR).convert("RGB"))
