"""Loads, warms up and times models in one process, one after the other. Knows of one target at a time.

What is timed is a loop of predictions on fixed inputs with the garbage collector off; samples go into arrays of 64-bit
integers. The clock is a parameter: tests run the loop on a scripted one.
"""

import gc
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency import memory, qos
from coreml_prune_bench.latency.energy import WINDOW_SECONDS, AppleMeter
from coreml_prune_bench.latency.steady import BATCH, is_steady
from coreml_prune_bench.latency.targets import Target
from coreml_prune_bench.records.latency import EnergyWindow, Memory, Placement
from coreml_prune_bench.records.latency import Protocol as Timing

WARM_UP_LIMIT_CALLS = 1000
WARM_UP_LIMIT_SECONDS = 20.0
"""A warm-up ends at the first of both even if it is not steady; the record then says so."""

_BEAT_NS = 1_000_000_000
_PARTED_SECONDS = 1.0
"""Time servers correct a clock by less within a visit."""

_AWAKE_CALLS = 10
"""After so many predictions what predicts is awake, and memory is what it will be."""


class Loaded(Protocol):
    """A model that makes the same prediction, of one batch, again and again."""

    def predict(self) -> object:
        """One call."""

    def model_ns(self) -> int | None:
        """How long the model took in the last call, as the runtime says; None where it does not."""


@dataclass(frozen=True)
class Opened:
    """A model loaded for the first time, with what that took. None: there is no such step, or it was not taken now."""

    model: Loaded
    compile_ns: int | None = None
    cold_load_ns: int | None = None
    cached_load_ns: int | None = None
    placement: Placement | None = None
    notes: tuple[str, ...] = ()


class Runtime(Protocol):
    """What can be timed."""

    def open(self, target: Target) -> Opened:
        """Compile, load cold and load again from the cache, where the runtime has such steps."""

    def reopen(self, target: Target) -> Loaded:
        """Load what was opened before, perhaps by another process."""

    def load_ns(self, target: Target) -> int | None:
        """What a load of the compiled model takes; None where the system has no cache of what it specialized."""

    def close(self) -> None:
        """Give back what the runtime holds outside of its process."""


@dataclass(frozen=True)
class Prepared:
    """What is known of a target before its first round; the fields of `Opened`, and the warm-up's calls.

    qos: the class of service that this thread is in; None where the system has none.
    """

    compile_ns: int | None
    cold_load_ns: int | None
    cached_load_ns: int | None
    placement: Placement | None
    notes: tuple[str, ...]
    warm_up_ns: tuple[int, ...]
    steady: bool
    qos: str | None


@dataclass(frozen=True)
class Visit:
    """The samples of one round of one target."""

    call_ns: tuple[int, ...]
    model_ns: tuple[int, ...] | None
    warm_up_ns: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One prediction. model_ns: None where the runtime does not say."""

    call_ns: int
    model_ns: int | None


class SleptError(BenchError):
    """The machine slept while it was measured."""


class Bench:
    """The models of one process. beat: called about once a second of predictions, so that a watchdog sees progress.

    clock: nanoseconds, as the samples are. wall: the time of day, which goes on while a Mac sleeps; `clock` does not.
    sleep: waits so many seconds.
    """

    def __init__(
        self,
        runtime: Runtime,
        clock: Callable[[], int],
        wall: Callable[[], int],
        beat: Callable[[], None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._runtime = runtime
        self._sleep = sleep
        self._meter: AppleMeter | None = None
        self._wall = wall
        self._clock = clock
        self._beat = beat
        self._models: dict[tuple[str, str, int], Loaded] = {}

    def prepare(self, target: Target, timing: Timing) -> Prepared:
        """Open the target and warm it up."""
        _set_qos(timing)
        opened = self._runtime.open(target)
        _settle_memory()
        warm_up, steady = self._warm_up(opened.model, timing)
        self._models[target.identity] = opened.model
        return Prepared(
            opened.compile_ns,
            opened.cold_load_ns,
            opened.cached_load_ns,
            opened.placement,
            opened.notes,
            warm_up,
            steady,
            qos.current(),
        )

    def visit(self, target: Target, timing: Timing) -> Visit:
        """One round of the target: warm again, then at least so many predictions and seconds.

        Raises SleptError if the time of day and the clock parted meanwhile: these samples are none.
        """
        with self._model(target, timing) as model:
            warm_up, _ = self._warm_up(model, timing)
            gc.disable()
            try:
                return self._timed(model, timing, warm_up)
            finally:
                gc.enable()

    def wake(self, target: Target, timing: Timing, idle_s: float) -> Call:
        """The first prediction after so many seconds without one. Raises SleptError as `visit`."""
        with self._model(target, timing) as model:
            for _ in range(_AWAKE_CALLS):
                model.predict()
            self._idle(idle_s)
            before = self._clock()
            model.predict()
            return Call(self._clock() - before, model.model_ns())

    def energy(self, target: Target, timing: Timing) -> EnergyWindow:
        """What a while of predictions uses, and a while of idling before it. Raises BenchError without counters."""
        self._meter = self._meter or AppleMeter()
        with self._model(target, timing) as model:
            for _ in range(_AWAKE_CALLS):
                model.predict()
            began = self._clock()
            self._meter.begin()
            self._idle(WINDOW_SECONDS)
            idled, idle_mj = self._clock(), self._meter.end()
            self._meter.begin()
            visit = self._timed(model, timing.model_copy(update={"predictions": 1, "seconds": WINDOW_SECONDS}), ())
            predicting_mj, ended = self._meter.end(), self._clock()
        return EnergyWindow(
            idle_s=(idled - began) / 1e9,
            idle_mj=idle_mj,
            predicting_s=(ended - idled) / 1e9,
            predictions=len(visit.call_ns),
            predicting_mj=predicting_mj,
        )

    def memory(self, target: Target, timing: Timing) -> Memory:
        """Of a process that has loaded nothing yet. Raises BenchError where the system does not say."""
        start = memory.held().now
        model = self._runtime.reopen(target)
        loaded = memory.held().peak
        for _ in range(_AWAKE_CALLS):
            model.predict()
        return Memory(load_peak_bytes=max(0, loaded - start), predict_peak_bytes=max(0, memory.held().peak - start))

    def load(self, target: Target) -> int:
        """Nanoseconds, where nothing is in the system's cache. Raises BenchError where there is no such cache."""
        if (taken := self._runtime.load_ns(target)) is None:
            raise BenchError("this runtime has nothing in a cache of the system's")
        return taken

    def drop(self, target: Target) -> None:
        """Forget a model, and give its memory back."""
        self._models.pop(target.identity, None)

    def close(self) -> None:
        """Give back what the runtime holds."""
        self._runtime.close()

    @contextmanager
    def _model(self, target: Target, timing: Timing) -> Iterator[Loaded]:
        """The target's model, to predict with inside the block. Raises SleptError if the machine slept meanwhile."""
        # Put back at the end: a model whose prediction failed is not used again.
        model = self._models.pop(target.identity, None) or self._runtime.reopen(target)
        _set_qos(timing)
        gc.collect()
        wall, clock = self._wall(), self._clock()
        yield model
        self._models[target.identity] = model
        lost_s = ((self._wall() - wall) - (self._clock() - clock)) / 1e9
        if abs(lost_s) > _PARTED_SECONDS:
            raise SleptError(
                f"the time of day and the clock parted by {lost_s:,.1f} s: the machine slept, or its time was set"
            )

    def _idle(self, seconds: float) -> None:
        """Predict nothing for so long, with signs of life."""
        until = self._clock() + round(seconds * 1e9)
        while (left_s := (until - self._clock()) / 1e9) > 0:
            self._sleep(min(left_s, _BEAT_NS / 1e9))
            self._beat()

    def _timed(self, model: Loaded, timing: Timing, warm_up: tuple[int, ...]) -> Visit:
        # Bound once: what stands inside the loop is overhead.
        clock, predict, model_ns = self._clock, model.predict, model.model_ns
        calls, models = array("q"), array("q")
        before = clock()
        enough, beat_at = before + round(timing.seconds * 1e9), before + _BEAT_NS
        while len(calls) < timing.predictions or before < enough:
            before = clock()
            predict()
            after = clock()
            calls.append(after - before)
            models.append(-1 if (took := model_ns()) is None else took)
            before = after
            if after > beat_at:
                self._beat()
                beat_at = after + _BEAT_NS
        told = tuple(models) if min(models) >= 0 else None
        return Visit(tuple(calls), told, warm_up)

    def _warm_up(self, model: Loaded, timing: Timing) -> tuple[tuple[int, ...], bool]:
        """The calls that it took, and whether they ended steady. A given number of calls is taken at its word."""
        clock = self._clock
        taken: list[int] = []
        began = beat_at = clock()
        while True:
            before = clock()
            model.predict()
            after = clock()
            told = model.model_ns()
            taken.append(after - before if told is None else told)
            if after > beat_at:
                self._beat()
                beat_at = after + _BEAT_NS
            if timing.warm_up_calls is not None:
                if len(taken) >= timing.warm_up_calls:
                    return tuple(taken), True
            elif len(taken) % BATCH == 0 and is_steady(taken):
                return tuple(taken), True
            elif len(taken) >= WARM_UP_LIMIT_CALLS or after - began > WARM_UP_LIMIT_SECONDS * 1e9:
                return tuple(taken), False


def _set_qos(timing: Timing) -> None:
    if timing.qos is not None:
        qos.become(timing.qos)


def _settle_memory() -> None:
    """Take what libraries have allocated so far out of later collections, which would take a tenth of a second each."""
    gc.collect()
    gc.freeze()
