"""What this Mac's chip says its parts have used: `zeus-apple-silicon`, which reads Apple's IOReport without sudo.

Its counters are in whole mJ and update a few times a second, so windows have to last seconds. The counters are those of
the chip, whatever program used it: what the chip uses while nothing is predicted is measured just before, and
subtracted.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from scipy import special

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency.statistics import CONFIDENCE, Interval
from coreml_prune_bench.records.latency import EnergyWindow

WINDOWS, WINDOW_SECONDS = 5, 2.0
"""Each of idling, and then of predictions."""

TOTAL = "total"

_COMPONENTS = {"neural_engine": "ane_mj", "gpu": "gpu_mj", "cpu": "cpu_total_mj"}
_WINDOW = "coreml-prune-bench"


class Meter(Protocol):
    """Measures from `begin` to `end`."""

    def begin(self) -> None: ...
    def end(self) -> dict[str, float]: ...


class AppleMeter:
    """The chip's own counters. Raises BenchError where they cannot be read."""

    def __init__(self) -> None:
        try:
            self._monitor = library().AppleEnergyMonitor()
        except ImportError as error:
            raise BenchError(
                f"no energy: {error}; on a Mac with Apple silicon, pip install 'coreml-prune-bench[energy]'"
            ) from error
        except RuntimeError as error:
            raise BenchError(f"no energy: {error}") from error

    def begin(self) -> None:
        self._monitor.begin_window(_WINDOW)

    def end(self) -> dict[str, float]:
        """mJ by component; without those that this chip does not tell."""
        told = self._monitor.end_window(_WINDOW)
        read = {name: getattr(told, attribute, None) for name, attribute in _COMPONENTS.items()}
        return {name: float(value) for name, value in read.items() if value is not None}


def library() -> Any:
    """The module that reads the counters."""
    return import_module("zeus_apple_silicon")


def energy_mj(windows: Sequence[EnergyWindow]) -> dict[str, Interval]:
    """mJ that a prediction takes beyond idling, by component and as `TOTAL`; a component that all windows tell.

    The mean over windows with Student's interval: each window, with the idling before it, is one repetition. Empty
    with fewer than two windows.
    """
    if len(windows) < 2:
        return {}
    told = [name for name in _COMPONENTS if all(name in one.idle_mj and name in one.predicting_mj for one in windows)]
    by_component = {name: np.array([_of_one(window, name) for window in windows]) for name in told}
    if by_component:
        by_component[TOTAL] = np.sum(list(by_component.values()), axis=0)
    return {name: _interval(values) for name, values in by_component.items()}


def _of_one(window: EnergyWindow, component: str) -> float:
    idle_mw = window.idle_mj[component] / window.idle_s
    return (window.predicting_mj[component] - idle_mw * window.predicting_s) / window.predictions


def _interval(values: "np.ndarray") -> Interval:
    mean, count = float(values.mean()), len(values)
    margin = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / count**0.5)
    return Interval(mean, mean - margin, mean + margin)
