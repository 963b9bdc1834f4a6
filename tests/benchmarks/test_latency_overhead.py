"""What measuring latency adds itself: time outside of predictions, and memory over many predictions.

Predictions that keep the processor busy for the published MobileNetV2's 0.48 ms, in this process on the real clock, a
package on four choices of compute units, states read by starting as many tools as on a Mac.

Never a timed test: `make benchmark` prints the share, nothing here asserts it. Memory is asserted, being no matter of
speed.
"""

import subprocess
import time
import tracemalloc
from pathlib import Path

import pytest

from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.latency.bench import Bench
from coreml_prune_bench.latency.session import Machine, Session
from coreml_prune_bench.latency.targets import Target, package_at
from coreml_prune_bench.records.latency import Protocol, State
from tests.latency.sessions import COOL, MAC, InProcess, runtime
from tests.runtimes.fake_runtime import FakeRuntime

PREDICTION_NS = 480_000
PREDICTIONS = 100_000
SAMPLE_BYTES = 16
"""Two integers of 64 bits, of the call and of the model: what is kept of each prediction."""


class Busy(FakeRuntime):
    """Predictions that keep the processor busy for so long."""

    def __init__(self, nanoseconds: int) -> None:
        self._nanoseconds = nanoseconds

    def reopen(self, target: Target):
        return _BusyModel(self._nanoseconds)


class _BusyModel:
    def __init__(self, nanoseconds: int) -> None:
        self._nanoseconds = nanoseconds

    def predict(self) -> None:
        until = time.perf_counter_ns() + self._nanoseconds
        while time.perf_counter_ns() < until:
            pass

    def model_ns(self) -> int:
        return self._nanoseconds


def read_state() -> State:
    for _ in range(3):  # pmset twice, notifyutil
        subprocess.run(["true"], check=True)
    return COOL


@pytest.fixture
def targets(package: Path) -> list[Target]:
    return [Target(package, package_at(package), units) for units in ("all", "cpu_and_ne", "cpu_and_gpu", "cpu_only")]


def test_time_outside_of_predictions(benchmark, targets: list[Target], tmp_path: Path) -> None:
    protocol = Protocol(rounds=6, predictions=50, seconds=2.0)  # as by default
    machine = Machine(MAC, runtime, read_state, time.sleep)
    bench = Bench(Busy(PREDICTION_NS), time.perf_counter_ns, time.time_ns)

    def measure():
        session = Session(machine, protocol, tmp_path, again=True)
        with Reporter().steps("latency", 1) as steps:
            return session.run(targets, InProcess(bench), steps).records

    started = time.perf_counter()
    records = benchmark.pedantic(measure, rounds=1)
    taken = time.perf_counter() - started
    predicting = sum(
        sum(record.warm_up_ns) + sum(sum(one.call_ns) + sum(one.warm_up_ns) for one in record.rounds)
        for record in records
    )
    benchmark.extra_info.update(latency_overhead=1 - predicting / 1e9 / taken, prediction_ms=PREDICTION_NS / 1e6)


def test_memory_over_many_predictions(benchmark, targets: list[Target]) -> None:
    """What is allocated after 100,000 more predictions of a visit is their samples, and nothing else."""
    watched = _Watched()

    class Runtime(FakeRuntime):
        def reopen(self, target: Target):
            return watched

    timing = Protocol(rounds=1, predictions=_Watched.LAST, seconds=0)
    visit = benchmark.pedantic(
        Bench(Runtime(), time.perf_counter_ns, time.time_ns).visit, (targets[0], timing), rounds=1
    )
    assert len(visit.call_ns) == timing.predictions
    grown = (watched.bytes[_Watched.LAST] - watched.bytes[_Watched.FIRST]) / PREDICTIONS
    benchmark.extra_info.update(latency_bytes=grown)
    # An array that grows keeps an eighth in reserve.
    assert SAMPLE_BYTES * 0.9 < grown < SAMPLE_BYTES * 9 / 8 + 0.1


class _Watched:
    """Notes what is allocated at its first and its last call but those of the warm-up."""

    FIRST = 1_000
    LAST = FIRST + PREDICTIONS

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}
        self._calls = 0

    def predict(self) -> None:
        self._calls += 1
        if self._calls == self.FIRST:
            tracemalloc.start()
        if self._calls in (self.FIRST, self.LAST):
            self.bytes[self._calls] = tracemalloc.get_traced_memory()[0]
        if self._calls == self.LAST:
            tracemalloc.stop()

    def model_ns(self) -> int:
        return 1_000
