"""What resizing and sampling have in common, in NumPy."""

import numpy as np


def linear(x: np.ndarray, axis: int, points: np.ndarray) -> np.ndarray:
    """`x` at these points along an axis, between the two elements around each."""
    below = np.floor(points).astype(int)
    above = np.minimum(below + 1, x.shape[axis] - 1)
    share = (points - below).reshape(-1, *[1] * (x.ndim - 1 - axis % x.ndim))
    return np.take(x, below, axis) * (1 - share) + np.take(x, above, axis) * share
