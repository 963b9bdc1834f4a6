"""The train split as the training and calibration of `models` take it."""

from collections.abc import Callable

import numpy as np
import PIL.Image

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import (
    DataSet,
    Split,
    augment,
    load_images,
)
from coreml_prune_bench.data.split import map_in_threads

_MOST_KEPT_BYTES = 1 << 29
"""Of decoded photographs: 43,000 of 64x64, which Python cannot read as fast as a GPU takes them; 1,700 of 256x400."""


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
        self._kept: dict[int, PIL.Image.Image] = {}
        self._kept_bytes = 0
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
        return augment(self._photograph(position), self._image_size, (epoch, position))

    def _photograph(self, position: int) -> PIL.Image.Image:
        """Decoded in the first epoch that shows it, and kept where there is room for it."""
        image = self._kept.get(position)
        if image is None:
            image = self._split.image(position)
            size_bytes = 3 * image.width * image.height
            if self._kept_bytes + size_bytes <= _MOST_KEPT_BYTES:
                self._kept[position] = image
                self._kept_bytes += size_bytes
        return image


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
