"""Predictions made up for tests of gates."""

import numpy as np


def bits(lost: int = 0, gained: int = 0, images: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of predictions, 80 % of the images right in both, of which so many are lost and gained."""
    baseline = np.arange(images) < 0.8 * images
    run = baseline.copy()
    run[:lost] = False
    run[images - gained :] = True
    return baseline, run
