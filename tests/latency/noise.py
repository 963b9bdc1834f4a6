"""Labelled images for tests of training and pruning. Imports little: processes that tests start wait for it."""

import numpy as np


class Noise:
    """Labelled 16x16 noise that keeps a log of what was asked for."""

    def __init__(self, count: int = 40) -> None:
        coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        self._images = coarse.repeat(2, axis=1).repeat(2, axis=2)  # neighbours are alike, as in real images
        self.asked: list[tuple[int, list[int]]] = []

    def __len__(self) -> int:
        return len(self._images)

    def images(self, indices, epoch):
        self.asked.append((epoch, indices.tolist()))
        return self._images[indices]

    def labels(self, indices):
        return indices % 4
