"""Absolute rules, such as "top1 >= 75": what a row has to be whatever it was before.

Where a value is uncertain, three things can be said, as everywhere in a gate: shown to be met, shown to be missed, or
neither. It reads rows only: no torch, no coremltools.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from coreml_prune_bench.core.errors import BenchError, did_you_mean
from coreml_prune_bench.gating.rows import AccuracyRow, LatencyRow
from coreml_prune_bench.records.statistics import (
    accuracy_against,
    compare_predictions,
    median_against,
)

_FORM = re.compile(r"\s*(?P<name>\w+)\s*(?P<sign>>=|<=)\s*(?P<bound>[-+.\deE]+)\s*")
_NS_PER_MS = 1e6
_NAMED = "; of packages from elsewhere it is the one whose --name is the network alone"


class Value(NamedTuple):
    """What a row has, in the unit of its quantity. low, high: its interval at confidence 1 - 2 alpha.

    p_low, p_high: small where it is shown to lie below the bound, and above it. None: a value without uncertainty.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p_low: float | None = None
    p_high: float | None = None
    method: str = "one value: no test"


Row = AccuracyRow | LatencyRow


class _Quantity(NamedTuple):
    """sign: what may be asked of it. effect_unit: of a distance from a bound. of: its value, or why there is none.

    above, up_to: between which a bound has a meaning. kind: of the rows that have it. whose: those rows in words.
    """

    sign: Literal[">=", "<="]
    unit: str
    effect_unit: str
    of: "Callable[[Row, AccuracyRow | None, float, float], Value | str | None]"
    above: float = 0
    up_to: float = 1e9
    whose: str = "an accuracy"
    kind: Literal["accuracy", "latency"] = "accuracy"


def _top1(row: Row, dense: AccuracyRow | None, bound: float, alpha: float) -> Value | None:
    if not isinstance(row, AccuracyRow):
        return None
    found = accuracy_against(row.correct, bound / 100, alpha=alpha)
    return Value(100 * row.top1, 100 * found.low, 100 * found.high, found.p_below, found.p_above, found.method)


def _loss(row: Row, dense: AccuracyRow | None, bound: float, alpha: float) -> Value | str | None:
    """A loss is above its bound where the difference is below minus that."""
    if not isinstance(row, AccuracyRow) or row is dense:
        return None
    if dense is None:
        return f"there is no dense row of it, of the same images{_NAMED}"
    sides, allowed = (dense.correct, row.correct), bound / 100
    found = compare_predictions(*sides, allowed=allowed, margin=0.01, alpha=alpha)
    smaller = compare_predictions(*sides, allowed=-allowed, margin=0.01, alpha=alpha)  # a gain of -bound or more
    interval = (-100 * found.high, -100 * found.low)
    return Value(0.0 - 100 * found.effect, *interval, smaller.p_above, found.p_below, found.method)


def _package_mb(row: Row, dense: AccuracyRow | None, bound: float, alpha: float) -> Value | str | None:
    if not isinstance(row, AccuracyRow):
        return None
    sizes = [trial.package_bytes for trial in row.trials if trial.package_bytes is not None]
    return Value(float(np.mean(sizes)) / 1e6) if sizes else "its size is not known"


def _weight_mb(row: Row, dense: AccuracyRow | None, bound: float, alpha: float) -> Value | None:
    return Value(row.weight_bytes / 1e6) if isinstance(row, AccuracyRow) else None


def _ratio(row: Row, dense: AccuracyRow | None, bound: float, alpha: float) -> Value | str | None:
    if not isinstance(row, AccuracyRow) or row is dense:
        return None
    if dense is None:
        return f"there is no dense row of it{_NAMED}"
    return Value(dense.weight_bytes / row.weight_bytes) if row.weight_bytes else "its weight.bin is empty"


def _sparsity(row: Row, dense: AccuracyRow | None, bound: float, alpha: float) -> Value | None:
    return Value(100 * row.whole_model_sparsity) if isinstance(row, AccuracyRow) else None


def _latency(row: Row, dense: AccuracyRow | None, bound: float, alpha: float) -> Value | None:
    if not isinstance(row, LatencyRow):
        return None
    medians = [one.model_median_ns or one.call_median_ns for one in row.rounds]
    found = median_against(np.array(medians) / _NS_PER_MS, bound, alpha=alpha)
    known = math.isfinite(found.low)  # with enough rounds
    low, high = (found.low, found.high) if known else (None, None)
    return Value(found.effect, low, high, found.p_below, found.p_above, found.method)


QUANTITIES: dict[str, _Quantity] = {
    "top1": _Quantity(">=", "%", "points", _top1, above=1, up_to=100),
    "loss_against_dense": _Quantity(
        "<=", "points", "points", _loss, above=-100, up_to=100, whose="a row beside the dense one"
    ),
    "package_mb": _Quantity("<=", "MB", "MB", _package_mb),
    "weight_mb": _Quantity("<=", "MB", "MB", _weight_mb),
    "ratio": _Quantity(">=", "times smaller", "times", _ratio, whose="a row beside the dense one"),
    "sparsity": _Quantity(">=", "%", "points", _sparsity, above=1, up_to=100),
    "latency_ms": _Quantity("<=", "ms", "ms", _latency, whose="a latency", kind="latency"),
}
"""By name; a new one is a line. MB are millions of bytes."""


@dataclass(frozen=True)
class Requirement:
    """One rule. text: as it was written, spaces apart."""

    name: str
    bound: float

    @property
    def quantity(self) -> _Quantity:
        return QUANTITIES[self.name]

    @property
    def text(self) -> str:
        return f"{self.name} {self.quantity.sign} {self.bound:g}"

    def value(self, row: Row, dense: AccuracyRow | None, alpha: float) -> Value | str | None:
        """What a row has of it; why that is not known; None where such a row has nothing of the kind."""
        return self.quantity.of(row, dense, self.bound, alpha)

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.quantity.sign == ">=" else value <= self.bound

    def p_missed(self, value: Value) -> float | None:
        return value.p_low if self.quantity.sign == ">=" else value.p_high

    def p_met(self, value: Value) -> float | None:
        return value.p_high if self.quantity.sign == ">=" else value.p_low


def parse(text: str) -> Requirement:
    """A rule from its text. Raises BenchError of one line that says what would be right."""
    found = _FORM.fullmatch(text)
    expected = ", ".join(f"{name} {quantity.sign} NUMBER" for name, quantity in QUANTITIES.items())
    if not found:
        raise BenchError(f"{text!r}: expected one of {expected}")
    name = found["name"]
    if name not in QUANTITIES:
        raise BenchError(f"{text!r}: {name!r} is none of {', '.join(QUANTITIES)}{did_you_mean(name, QUANTITIES)}")
    if found["sign"] != QUANTITIES[name].sign:
        raise BenchError(f"{text!r}: expected {name} {QUANTITIES[name].sign} NUMBER")
    try:
        bound = float(found["bound"])
    except ValueError:
        raise BenchError(f"{text!r}: {found['bound']!r} is no number") from None
    above, up_to, unit = QUANTITIES[name].above, QUANTITIES[name].up_to, QUANTITIES[name].unit
    if not above < bound <= up_to:
        raise BenchError(f"{text!r}: expected a number above {above:g} and up to {up_to:g}, in {unit}")
    return Requirement(name, bound)
