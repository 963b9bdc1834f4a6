"""When a warm-up has ended: MSER-5, the rule for the initial transient of a simulation's output.

K. P. White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69(6), 1997, and
White, Cobb and Spratt, "A comparison of five steady-state truncation heuristics for simulation", WSC 2000: of the
means of each 5 calls, drop as many from the front as leaves the smallest standard error of what remains; a cut in the
second half says that the series is too short to tell. Here the five are summed up by their median, so that a single
call that something interrupted is not taken for a trend.
"""

from collections.abc import Sequence

import numpy as np

BATCH = 5
_FEWEST_BATCHES = 6
_LEFT = 2
"""The rule compares what remains, so some has to."""

FEWEST = BATCH * _FEWEST_BATCHES
"""No warm-up is shorter."""


def truncation(durations: Sequence[int]) -> int | None:
    """How many calls at the front are the warm-up; None where the series is too short to tell."""
    batches = len(durations) // BATCH
    if batches < _FEWEST_BATCHES:
        return None
    medians = np.median(np.asarray(durations[: batches * BATCH], float).reshape(batches, BATCH), axis=1)
    # Of each tail: its length, sum and sum of squares; the sum of squared deviations over the length squared.
    tail = medians[::-1] - medians[-1]  # centred, for precision
    length = np.arange(1, batches + 1)
    squares = np.cumsum(tail**2) - np.cumsum(tail) ** 2 / length
    error = np.maximum(squares[_LEFT - 1 :], 0) / length[_LEFT - 1 :] ** 2
    # Of equal cuts the earlier, which keeps more: a series without any noise has no warm-up.
    cut = batches - _LEFT - (len(error) - 1 - int(np.argmin(error[::-1])))
    return cut * BATCH if cut <= batches // 2 else None


def is_steady(durations: Sequence[int]) -> bool:
    """Whether the last half of these calls, at least, is free of warm-up."""
    return truncation(durations) is not None
