"""What goes wrong in a worker process costs one row, which gets a failed record with the reason."""

import functools
import sys
from pathlib import Path

import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.latency.runtimes import CoreMLRuntime
from coreml_prune_bench.latency.session import Session
from coreml_prune_bench.latency.statistics import summarize
from coreml_prune_bench.latency.targets import Target
from coreml_prune_bench.latency.worker import StepFailedError, Workers
from coreml_prune_bench.records.latency import LatencyRecord, Protocol, read_latency_records
from coreml_prune_bench.testing import Clock, Failure, Script
from coreml_prune_bench.testing.worker import on_stand_in
from tests.latency.sessions import copies, machine
from tests.runtimes.fake_runtime import FakeRuntime, broken, unusable

SHORT = Protocol(rounds=2, predictions=3, seconds=0)
FAILURES = {
    "uncompilable": Failure("compile"),
    "unloadable": Failure("load"),
    # Calls are counted from the load on, and a process that is replaced loads again.
    "failing": Failure("predict", at_call=45),
    "hanging": Failure("hang", at_call=35),
    "dying": Failure("die", at_call=40),
}
REASONS = {
    "uncompilable": "Core ML does not compile it: Error compiling model",
    "unloadable": "Core ML does not load it: Failed to build the model execution plan",
    "failing": "RuntimeError: Unable to compute the prediction using a neural network model.",
    "hanging": "hung: no sign of life for 5 s, so its process was killed",
    "dying": "its process ended by itself (signal SIGSEGV)",
}


def test_every_failure_ends_in_a_record_and_the_others_are_measured(package: Path, tmp_path: Path) -> None:
    targets = copies(package, tmp_path, "first", *FAILURES, "last")
    script = Script(failures=FAILURES, cold_load_ms=1, cached_load_ms=1)
    session = Session(machine(Clock()), Protocol(rounds=2, predictions=20, seconds=0), tmp_path)
    with (
        Reporter().steps("latency", 1) as steps,
        Workers(on_stand_in(script, CoreMLRuntime), limit_s=5) as workers,
    ):
        outcome = session.run(targets, workers, steps)
    by_name = {record.package.name: record for record in outcome.records}
    for name in ("first", "last"):
        assert by_name[name].status == "measured"
        assert [len(one.call_ns) for one in by_name[name].rounds] == [20, 20]
    for name, reason in REASONS.items():
        assert by_name[name].status == "failed"
        assert reason in (by_name[name].reason or "")
    assert {record.key for record in outcome.failed} == {r.key for r in read_latency_records(tmp_path) if r.reason}


# --- the worker itself, with a runtime that needs no library


@pytest.fixture
def fake_target(package: Path, tmp_path: Path):
    def make(name: str) -> Target:
        return copies(package, tmp_path, name)[0]

    return make


def test_a_worker_is_replaced(fake_target) -> None:
    with Workers(FakeRuntime, limit_s=1) as workers:
        assert workers.ask("prepare", fake_target("good"), SHORT)[0].steady
        with pytest.raises(StepFailedError, match=r"ended by itself \(exit code 7\)"):
            workers.ask("prepare", fake_target("exit"), SHORT)
        with pytest.raises(StepFailedError, match="hung: no sign of life for 1 s"):
            workers.ask("prepare", fake_target("hang"), SHORT)
        # A new process has not prepared it, and loads it again.
        assert len(workers.ask("visit", fake_target("good"), SHORT)[0].call_ns) == 3


def test_slow_predictions_are_no_hang(fake_target) -> None:
    """A visit may take longer than the limit as long as predictions come to an end."""
    protocol = Protocol(rounds=1, predictions=6, seconds=0, warm_up_calls=1)
    with Workers(FakeRuntime, limit_s=1.5) as workers:
        assert len(workers.ask("visit", fake_target("slow"), protocol)[0].call_ns) == 6


def test_standard_output_is_not_the_models(fake_target, capfd: pytest.CaptureFixture[str]) -> None:
    with Workers(FakeRuntime, limit_s=5) as workers:
        workers.ask("prepare", fake_target("print"), SHORT)
    output, errors = capfd.readouterr()
    assert output == ""
    assert "what Core ML's compiler prints" in errors


def test_a_worker_does_without_torch(fake_target) -> None:
    assert "torch" in sys.modules  # here, of the tests' packages
    with Workers(FakeRuntime, limit_s=5) as workers, pytest.raises(StepFailedError, match="ModuleNotFoundError"):
        workers.ask("prepare", fake_target("torch"), SHORT)


def test_the_runtime_gives_back_what_it_holds(fake_target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CLOSED", str(tmp_path / "closed.txt"))
    with Workers(FakeRuntime, limit_s=5) as workers:
        workers.ask("prepare", fake_target("good"), SHORT)
    assert (tmp_path / "closed.txt").read_text() == "closed"


def test_a_runtime_that_does_not_open_ends_the_run(fake_target) -> None:
    with Workers(unusable, limit_s=5) as workers, pytest.raises(BenchError, match="no such thing here"):
        workers.ask("prepare", fake_target("good"), SHORT)
    with Workers(broken, limit_s=5) as workers, pytest.raises(BenchError, match=r"could not start: .*ended by itself"):
        workers.ask("prepare", fake_target("good"), SHORT)


def test_several_predictions_at_a_time(fake_target, tmp_path: Path) -> None:
    protocol = Protocol(rounds=2, predictions=10, seconds=0, concurrency=3)
    session = Session(machine(Clock()), protocol, tmp_path)
    with Reporter().steps("latency", 1) as steps, Workers(FakeRuntime, limit_s=5, count=3) as workers:
        (record,) = session.run([fake_target("good")], workers, steps).records
    assert [len(one.call_ns) for one in record.rounds] == [30, 30]
    # Little's law: three at a time, each as long as its call.
    mean_s = sum(sum(one.call_ns) for one in record.rounds) / 60 / 1e9
    assert summarize(record).throughput == pytest.approx(3 / mean_s)


def test_a_row_that_fails_in_one_process_of_several(fake_target, tmp_path: Path) -> None:
    session = Session(machine(Clock()), SHORT.model_copy(update={"concurrency": 2}), tmp_path)
    with Reporter().steps("latency", 1) as steps, Workers(FakeRuntime, limit_s=5, count=2) as workers:
        records: list[LatencyRecord] = session.run([fake_target("exit"), fake_target("good")], workers, steps).records
    assert [record.status for record in records] == ["failed", "measured"]


def test_openers_can_be_sent_to_a_process() -> None:
    import pickle

    from coreml_prune_bench.latency.iphone import Credentials, DeviceRuntime
    from coreml_prune_bench.latency.runtimes import PortableRuntime

    for opener in (CoreMLRuntime, PortableRuntime, functools.partial(DeviceRuntime, "id", Credentials())):
        pickle.loads(pickle.dumps(opener))
