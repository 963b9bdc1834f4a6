"""Latency sessions for tests: in this process on a scripted clock, with what executes made up."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.latency.bench import Bench, SleptError
from coreml_prune_bench.latency.runtimes import CoreMLRuntime
from coreml_prune_bench.latency.session import Machine, Outcome, Session
from coreml_prune_bench.latency.targets import Target, package_at
from coreml_prune_bench.latency.worker import Step, StepFailedError, VisitLostError, in_a_line
from coreml_prune_bench.records.accuracy import Network, Pruning, Runtime
from coreml_prune_bench.records.latency import (
    Device,
    LatencyRecord,
    MeasuredPackage,
    Protocol,
    State,
)
from coreml_prune_bench.testing import Clock, Script, StandIn, installed

MAC = Device(
    name="MacBook Pro (Mac14,9)",
    chip="Apple M2 Pro",
    memory_bytes=16 << 30,
    os="macOS",
    os_version="15.5",
    os_build="24F74",
    neural_engine_cores=16,
)
COOL = State(thermal="nominal", low_power=False, on_battery=False, battery_percent=100, load_average=1.0)
PROTOCOL = Protocol(rounds=6, predictions=50, seconds=0.5)


class InProcess:
    """The steps of a bench in this process."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.steps: list[tuple[Step, str]] = []

    def ask(self, step: Step, *arguments: Any) -> list[Any]:
        self.steps.append((step, arguments[0].name))
        return [self._taken(step, *arguments)]

    def ask_alone(self, step: Step, *arguments: Any, cold: bool = False) -> Any:
        raise StepFailedError("no process of its own")

    def _taken(self, step: Step, *arguments: Any) -> Any:
        try:
            return getattr(self._bench, step)(*arguments)
        except SleptError as error:
            raise VisitLostError(str(error)) from error
        except Exception as error:
            raise StepFailedError(in_a_line(error)) from error


def runtime(compute_units: str) -> Runtime:
    return Runtime(name="coreml", version="macOS 15.5 (24F74), coremltools 9.0", compute_units=compute_units)


def machine(
    clock: Clock, state: Callable[[], State] = lambda: COOL, sleep: Callable[[float], None] | None = None
) -> Machine:
    return Machine(MAC, runtime, state, sleep or clock.sleep)


def network_of(package: MeasuredPackage, algorithm: str) -> MeasuredPackage:
    """The package, as one of a suite."""
    dense = algorithm == "dense"
    pruning = Pruning(
        algorithm=algorithm,
        title="n/a" if dense else "SparseGPT",
        config="Float16" if dense else "Unstructured Sparsity 50%",
        sparsity=0.0 if dense else 0.5,
        scope="",
        settings={},
    )
    network = Network(name="mobilenet_v2", title="MobileNetv2-1.0", weights="w", trained=False)
    return package.model_copy(update={"network": network, "pruning": pruning, "classes": 1000, "image_size": 224})


def copies(package: Path, folder: Path, *names: str, units: str = "all") -> list[Target]:
    """The package under several names, which the stand-in's script knows apart."""
    targets = []
    for name in names:
        path = folder / f"{name}.mlpackage"
        if not path.exists():
            shutil.copytree(package, path)
            manifest = path / "Manifest.json"  # else they would be one and the same package
            manifest.write_text(manifest.read_text().replace("CoreML Model Weights", name))
        targets.append(Target(path, package_at(path), units))
    return targets


def measure(
    script: Script, targets: list[Target], results: Path, protocol: Protocol = PROTOCOL, **options: Any
) -> tuple[list[LatencyRecord], StandIn]:
    """A whole session on the stand-in, on its clock."""
    with installed(script) as stand_in:
        outcome = run(stand_in, targets, results, protocol, **options)
    return outcome.records, stand_in


def run(stand_in: StandIn, targets: list[Target], results: Path, protocol: Protocol, **options: Any) -> Outcome:
    session = Session(machine(stand_in.clock), protocol, results, **options)
    with Reporter().steps("latency", 1) as steps:
        return session.run(targets, InProcess(_bench(stand_in)), steps)


def _bench(stand_in: StandIn) -> Bench:
    return Bench(CoreMLRuntime(), stand_in.clock, stand_in.clock.wall, sleep=stand_in.world.wait)


def scripted_truth(stand_in: StandIn, name: str, record: LatencyRecord, milliseconds: float) -> list[list[float]]:
    """What each round's latencies were scripted to be, without chance, in nanoseconds."""
    factors = iter(stand_in.world.factors[name, "ALL"])

    def take(count: int) -> list[float]:
        return [milliseconds * 1e6 * next(factors) for _ in range(count)]

    take(len(record.warm_up_ns))
    rounds = []
    for one in record.rounds:
        take(len(one.warm_up_ns))
        rounds.append(take(len(one.call_ns)))
    return rounds


def states(*thermal: str) -> Callable[[], State]:
    """Readings in turn; the last one stays."""
    readings: Iterator[str] = iter(thermal)
    last = [thermal[-1]]

    def read() -> State:
        last[0] = next(readings, last[0])
        return COOL.model_copy(update={"thermal": last[0]})

    return read
