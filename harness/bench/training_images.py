"""The train split as the training and calibration of `models` take it."""

from collections.abc import Callable

import numpy as np

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import (
    DataSet,
    Split,
    augment,
    load_images,
)
from coreml_prune_bench.data.split import map_in_threads


class TrainingImages:
    """The train split, less the images left out: `members` are the positions in the split that stay, int64 [N].

    Photographs are augmented, each as its own number and the epoch say, so that trials in another order see the same
    views. Other images are few and small, and decoded once.
    """

    def __init__(self, data: DataSet, split: Split, members: np.ndarray) -> None:
        self._photographs = data.photographs
        self._image_size = data.image_size
        self._preprocessing = data.preprocessing
        self._split = split
        self.members = members
        self._decoded = None if data.photographs else load_images(split, members, data.image_size, data.preprocessing)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def skipped(self) -> list[str]:
        """Ids of the images left out."""
        kept = set(self.members.tolist())
        return [name for position, name in enumerate(self._split.ids) if position not in kept]

    def images(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        """uint8 [n, H, W, 3]; as in evaluation where epoch is None, else made in the thread that asks."""
        if self._decoded is not None:
            return self._decoded[indices]
        if epoch is None:
            return load_images(self._split, self.members[indices], self._image_size, self._preprocessing)
        return np.stack([self._view(int(position), epoch) for position in self.members[indices]])

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """int64 [n]."""
        return self._split.labels[self.members[indices]]

    def _view(self, position: int, epoch: int) -> np.ndarray:
        return augment(self._split.image(position), self._image_size, (epoch, position))


def bad_images(split: Split, progress: Callable[[int, int], None]) -> list[int]:
    """Positions of the images of a split that do not decode."""

    def is_bad(position: int) -> bool:
        try:
            split.image(position)
        except DataError:
            return True
        return False

    found = map_in_threads(is_bad, len(split), progress=progress)
    return [position for position, bad in enumerate(found) if bad]
