"""What this Mac's chip says its parts have used: `zeus-apple-silicon`, which reads Apple's IOReport without sudo.

Its counters are in whole mJ and update a few times a second, so windows have to last seconds. The counters are those of
the chip, whatever program used it: what the chip uses while nothing is predicted is measured just before, and
subtracted.
"""

from importlib import import_module
from typing import Any

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.latency import ENERGY_COMPONENTS

WINDOWS, WINDOW_SECONDS = 5, 2.0
"""Each of idling, and then of predictions."""

_COUNTERS = dict(zip(ENERGY_COMPONENTS, ("ane_mj", "gpu_mj", "cpu_total_mj"), strict=True))
_WINDOW = "coreml-prune-bench"


class AppleMeter:
    """The chip's own counters. Raises BenchError where they cannot be read."""

    def __init__(self) -> None:
        try:
            self._monitor = library().AppleEnergyMonitor()
        except ImportError as error:
            raise BenchError(
                f"{error}; on a Mac with Apple silicon, pip install 'coreml-prune-bench[energy]'"
            ) from error
        except RuntimeError as error:
            raise BenchError(str(error)) from error

    def begin(self) -> None:
        """Start a window, which `end` ends."""
        self._monitor.begin_window(_WINDOW)

    def end(self) -> dict[str, float]:
        """mJ by component; without those that this chip does not tell."""
        told = self._monitor.end_window(_WINDOW)
        read = {name: getattr(told, attribute, None) for name, attribute in _COUNTERS.items()}
        return {name: float(value) for name, value in read.items() if value is not None}


def library() -> Any:
    """The module that reads the counters."""
    return import_module("zeus_apple_silicon")
