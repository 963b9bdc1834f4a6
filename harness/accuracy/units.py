"""Whether compute units compute what the package says: by how many images are further off than rounding explains.

Core ML, and Core AI as well, computes most of a Float16 package in Float16, so its scores differ from Float32's. By
how much rounding alone explains is measured on the same images: the portable runtime in Float16 beside itself in
Float32. An image is off where Core ML's largest error of a score is more than the runtime's factor (`factor_of`) times
that. A unit is wrong where more images are off than `ALLOWED` would be by chance, right where that many are excluded,
and else nobody can tell.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from coreml_prune_bench.accuracy.parity import Compared
from coreml_prune_bench.records.parity import ParityRecord, factor_of, off_images, usual_rounding

ALLOWED = 0.05
"""Of the images."""

_ALPHA, _POWER = 0.05, 0.8
_STEPS = 60

Verdict = Literal["right", "wrong", "cannot tell"]


@dataclass(frozen=True)
class UnitVerdict:
    """off: how many of `images` are. factor: the median error by what rounding makes of the median image, if anything.

    p_value: of as many off, or more, by chance where `ALLOWED` of them are. detectable: the smallest fraction off that
    so many images find with a power of 80 %; None where they find none.
    """

    verdict: Verdict
    off: int
    images: int
    factor: float | None
    p_value: float
    detectable: float | None


def judge(record: Compared | ParityRecord, *, runtime: str = "coreml", units: int = 1) -> UnitVerdict | None:
    """The verdict on one choice of compute units of that runtime, of so many that are judged together (Bonferroni).

    None for a record of before 0.2, which does not say what rounding makes.
    """
    if not record.rounding_error:
        return None
    images, off = len(record.largest_error), off_images(record.largest_error, record.rounding_error, factor_of(runtime))
    alpha = _ALPHA / units
    p_value = float(special.bdtrc(off - 1, images, ALLOWED)) if off else 1.0
    excluded = float(special.bdtr(off, images, ALLOWED)) <= alpha
    verdict: Verdict = "wrong" if p_value <= alpha else "right" if excluded else "cannot tell"
    typical = float(np.median(usual_rounding(record.rounding_error)))
    factor = float(np.median(record.largest_error)) / typical if typical else None
    return UnitVerdict(verdict, off, images, factor, p_value, _detectable(images, alpha))


def _detectable(images: int, alpha: float) -> float | None:
    """The smallest fraction that a binomial test of more than `ALLOWED` finds with the power."""
    least = next((k for k in range(1, images + 1) if special.bdtrc(k - 1, images, ALLOWED) <= alpha), None)
    if least is None:
        return None
    low, high = ALLOWED, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if special.bdtrc(least - 1, images, middle) >= _POWER else (middle, high)
    return high
