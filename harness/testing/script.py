"""What the stand-in is to do. Plain data, so that it can be sent to a worker process."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
    """A Mac. The defaults are what Apple's sources, its wheel and public reports say of one; docs/mac.md lists them.

    latencies and failures: by the name of the package, or by "name units" for one choice of compute units.

    Time, in milliseconds. cold_load_ms, cached_load_ms: the first load of a compiled path for compute units, and later
    ones. conversion_ms: what a call takes besides the model. rewake_ms: what the first prediction on the Neural Engine
    takes besides after `rewake_after_s` of idling. qos_factors: how much longer predictions take in a class of service.
    energy_mj: what a prediction takes, by component ("neural_engine", "gpu", "cpu"), and idle_mw what the machine takes
    all the time; None without the library that reads it. memory_mib: what a process holds more with a model loaded,
    and while it predicts.

    sleeps_at_s, sleeps_for_s: the machine falls asleep once, for so long. throttles_after: so many predictions, after
    which the thermal state is serious.

    What the native module does. arrays: the element types that it takes. lacks: methods that it has not.
    float16_as: the element type that Float16 results come in. duration_unit_ns: of `last_predict_duration`.
    duration_before: what it is before the first prediction. batch_duration: of the whole batch, or of one sample.
    dumps: errors are texts of userInfo dictionaries. segfaults_late: input arrays that are gone end the process.
    error: what is added to results, by compute units. keeps_state: what was written into a state is read from it.

    What the system caches. cache_key: a specialized model is found by its path, or by its content.
    fresh_home_is_cold: CFFIXED_USER_HOME moves the cache. plan_warms: so does loading a compute plan. moves: a compiled
    model loads from another folder than it was loaded from first.

    Compute plans. placement, costs: the preferred device and the estimate, by operation type. plans: whether the
    operating system has them. plans_constants: they have entries for constants. plans_follow_units: they keep to the
    compute units that were asked for.

    The machine. neural_engine_cores: None for one without; engines: an Ultra has two; listed_cores: what Core ML's list
    says instead. silent: tools that print nothing. awake: `caffeinate` holds the machine awake. mps: whether torch
    finds Apple's GPU, and what its copies are. home: the folder of its user; a new one, if None.

    predicts: whether predictions are computed, or the first one repeated; "new": for inputs that are other objects than
    the last ones.
    """

    latencies: Mapping[str, Latency] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    compile_ms: float = 200.0
    cold_load_ms: float = 5000.0
    cached_load_ms: float = 50.0
    conversion_ms: float = 0.05
    rewake_ms: float = 0.0
    rewake_after_s: float = 4.0
    qos_factors: Mapping[str, float] = field(default_factory=lambda: {"utility": 1.6, "background": 3.0})
    qos_settable: bool = True
    energy_mj: Mapping[str, float] | None = None
    idle_mw: Mapping[str, float] = field(default_factory=lambda: {"neural_engine": 0.0, "gpu": 20.0, "cpu": 300.0})
    memory_mib: tuple[float, float] = (40.0, 55.0)
    sleeps_at_s: float = math.inf
    sleeps_for_s: float = 0.0
    throttles_after: int | None = None
    arrays: tuple[str, ...] = ("int32", "float32", "float64")
    lacks: tuple[str, ...] = ()
    float16_as: str = "float32"
    duration_unit_ns: float = 1.0
    duration_before: int | None = None
    batch_duration: Literal["whole", "one"] = "whole"
    batch_in_order: bool = True
    dumps: bool = True
    segfaults_late: bool = False
    error: Mapping[str, float] = field(default_factory=dict)
    keeps_state: bool = True
    cache_key: Literal["path", "content"] = "path"
    fresh_home_is_cold: bool = True
    plan_warms: bool = True
    moves: bool = True
    placement: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    plans: bool = True
    plans_constants: bool = False
    plans_follow_units: bool = True
    macos: tuple[int, int] = (15, 5)
    neural_engine_cores: int | None = 16
    engines: int = 1
    listed_cores: int | None = None
    virtual: bool = False
    translated: bool = False
    silent: tuple[str, ...] = ()
    awake: bool = True
    free_gib: float = 200.0
    telemetry: bool = False
    mps: Literal["none", "right", "corrupt"] = "none"
    devicectl_found: bool = True
    home: str | None = None
    predicts: bool | Literal["new"] = True
    seed: int = 0

    def latency(self, name: str, units: str) -> Latency:
        """Of a package on compute units."""
        return self.latencies.get(f"{name} {units.lower()}") or self.latencies.get(name) or Latency()

    def failure(self, name: str, units: str) -> Failure | None:
        """Of a package on compute units, if it has one."""
        return self.failures.get(f"{name} {units.lower()}") or self.failures.get(name)


def script_of(content: Mapping[str, Any], home: str | None = None) -> Script:
    """A script from JSON: its fields by name, latencies and failures as their fields. Raises TypeError for others."""
    fields: dict[str, Any] = {**content, **({"home": home} if home else {})}
    fields["latencies"] = {name: Latency(**one) for name, one in content.get("latencies", {}).items()}
    fields["failures"] = {name: Failure(**one) for name, one in content.get("failures", {}).items()}
    for name in ("arrays", "lacks", "macos", "memory_mib", "silent"):
        if name in content:
            fields[name] = tuple(content[name])
    return Script(**fields)
