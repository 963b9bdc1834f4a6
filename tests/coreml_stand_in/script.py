"""What the stand-in is to do. Plain data, so that it can be sent to a worker process."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Latency:
    """How long predictions of one model take, in milliseconds; every part can be left out.

    noise: standard deviation, as a fraction. warm_up: the factor of the first call after loading, which falls to 1
    within `warm_up_calls` calls. drift: what is added from time 0 to `span_s`, as a fraction. outlier_share of the
    calls take `outlier_factor` as long, second_share of them `second_factor`. step: a factor from `step_at_s` on.
    """

    ms: float = 1.0
    noise: float = 0.005
    warm_up: float = 1.0
    warm_up_calls: int = 0
    drift: float = 0.0
    span_s: float = 1.0
    outlier_share: float = 0.0
    outlier_factor: float = 5.0
    second_share: float = 0.0
    second_factor: float = 1.3
    step: float = 1.0
    step_at_s: float = math.inf

    def factor(self, call: int, at_s: float) -> float:
        """Of the latency, without chance: at this call since the model was loaded, and at this time."""
        # Exponential, and at the last call of the curve less than the noise away from 1.
        warm = 1 + (self.warm_up - 1) * math.exp(-7 * call / self.warm_up_calls) if self.warm_up_calls else 1.0
        return warm * (1 + self.drift * at_s / self.span_s) * (self.step if at_s >= self.step_at_s else 1.0)

    def draw(self, call: int, at_s: float, draw: np.random.Generator) -> int:
        """Nanoseconds."""
        factor = self.factor(call, at_s) * max(1 + self.noise * draw.standard_normal(), 0.1)
        if draw.random() < self.second_share:
            factor *= self.second_factor
        if draw.random() < self.outlier_share:
            factor *= self.outlier_factor
        return round(self.ms * 1e6 * factor)


@dataclass(frozen=True)
class Failure:
    """What goes wrong with a model, and for a prediction at which call.

    die: the process ends. hang: it does not come back. Both need a process of their own.
    """

    kind: Literal["compile", "load", "predict", "hang", "die"]
    at_call: int = 0


@dataclass(frozen=True)
class Script:
    """latencies and failures: by the name of the package, or by "name units" for one choice of compute units.

    cold_load_ms, cached_load_ms: the first load of a compiled path for compute units, and later ones. conversion_ms:
    what a call takes besides the model. placement, costs: the preferred device and the estimate, by operation type.
    neural_engine_cores: None for a machine without. plans: whether the operating system has compute plans.
    predicts: whether predictions are computed, or the first one repeated.
    """

    latencies: Mapping[str, Latency] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    compile_ms: float = 200.0
    cold_load_ms: float = 5000.0
    cached_load_ms: float = 50.0
    conversion_ms: float = 0.05
    placement: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    neural_engine_cores: int | None = 16
    macos: tuple[int, int] = (15, 5)
    plans: bool = True
    predicts: bool = True
    seed: int = 0

    def latency(self, name: str, units: str) -> Latency:
        return self.latencies.get(f"{name} {units.lower()}") or self.latencies.get(name) or Latency()

    def failure(self, name: str, units: str) -> Failure | None:
        return self.failures.get(f"{name} {units.lower()}") or self.failures.get(name)
