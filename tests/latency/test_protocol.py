"""The protocol on the stand-in, with scripted truth: what is reported is what was scripted."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.latency.bench import WARM_UP_LIMIT_CALLS, Bench
from coreml_prune_bench.latency.runtimes import CoreMLRuntime
from coreml_prune_bench.latency.session import COOL_DOWN_SECONDS, Session
from coreml_prune_bench.latency.statistics import speed_up, summarize
from coreml_prune_bench.latency.steady import FEWEST, is_steady, truncation
from coreml_prune_bench.records.latency import Protocol, read_latency_record, read_latency_records
from coreml_prune_bench.testing import Failure, Latency, Script, installed
from tests.latency.sessions import PROTOCOL, InProcess, copies, machine, measure, run, scripted_truth, states

SCRIPTS = {
    "steady": Latency(ms=2),
    "noisy": Latency(ms=2, noise=0.05),
    "warm-up": Latency(ms=6.4, warm_up=2.35, warm_up_calls=18),
    "slow warm-up": Latency(ms=2, warm_up=3, warm_up_calls=200),
    "drift": Latency(ms=2, drift=0.2, span_s=4),
    "outliers": Latency(ms=2, outlier_share=0.05, outlier_factor=8),
    "bimodal": Latency(ms=2, second_share=0.3, second_factor=1.3),
    "thermal step": Latency(ms=2, step=1.5, step_at_s=2.5),
}
WARNED = {
    "drift": "drifted by +",
    "bimodal": "calls come at two speeds, about 2 and 2.6 ms",
    "thermal step": "drifted by +",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_median_is_the_scripted_one(name: str, package: Path, tmp_path: Path) -> None:
    latency = SCRIPTS[name]
    script = Script({"p": latency}, cold_load_ms=10, cached_load_ms=1, predicts=False)
    (record,), stand_in = measure(script, copies(package, tmp_path, "p"), tmp_path)
    truth = np.median([np.median(one) for one in scripted_truth(stand_in, "p", record, latency.ms)])
    found = summarize(record)
    assert found.median_ns.value == pytest.approx(truth, rel=0.01)
    assert found.median_ns.low <= found.median_ns.value <= found.median_ns.high
    assert found.model_time
    # The call takes longer than the model: the difference is the conversion of its inputs and outputs.
    assert found.call_median_ns - found.median_ns.value == pytest.approx(50_000, rel=0.2)
    assert [warning for warning in found.warnings if WARNED.get(name, "never") in warning] == list(found.warnings)
    assert bool(found.warnings) == (name in WARNED)


@pytest.mark.parametrize("name", ["warm-up", "slow warm-up"])
def test_no_call_of_the_warm_up_curve_is_in_a_round(name: str, package: Path, tmp_path: Path) -> None:
    latency = SCRIPTS[name]
    script = Script({"p": latency}, predicts=False)
    (record,), stand_in = measure(script, copies(package, tmp_path, "p"), tmp_path)
    assert len(record.warm_up_ns) >= latency.warm_up_calls
    assert max(np.concatenate(scripted_truth(stand_in, "p", record, 1.0))) < 1e6 * (1 + latency.noise)
    assert record.notes == ()


def test_a_warm_up_that_does_not_end_is_bounded_and_said(package: Path, tmp_path: Path) -> None:
    script = Script({"p": Latency(ms=1, noise=0.0001, drift=1.0, span_s=1)}, predicts=False)
    protocol = Protocol(rounds=1, predictions=1, seconds=0)
    (record,), _ = measure(script, copies(package, tmp_path, "p"), tmp_path, protocol)
    assert len(record.warm_up_ns) == WARM_UP_LIMIT_CALLS
    assert record.notes == (f"its warm-up was not steady after {WARM_UP_LIMIT_CALLS:,} calls",)


def test_steady_state_by_hand() -> None:
    assert truncation([5] * (FEWEST - 1)) is None  # too short to tell
    assert truncation([5] * FEWEST) == 0
    # Two batches of a warm-up before four of the steady state: dropping both leaves no error.
    assert truncation([9] * 5 + [7] * 5 + [5] * 20) == 10
    # Still falling: what remains is least spread at its end, which is in the second half.
    assert not is_steady([1000 - 10 * call for call in range(100)])
    # One call that something interrupted is no warm-up.
    assert truncation([5] * 12 + [500] + [5] * 17) == 0


def test_interleaving_cancels_a_drift(package: Path, tmp_path: Path) -> None:
    """A machine that becomes 20 % slower over the session: the speed-up is off by less than 1 %."""
    seconds = 2 * PROTOCOL.rounds * 0.6
    slower = {"drift": 0.2, "span_s": seconds}
    script = Script(
        {"dense": Latency(ms=3, **slower), "sparse": Latency(ms=2, **slower)},
        cold_load_ms=1, cached_load_ms=1, predicts=False,
    )  # fmt: skip
    targets = copies(package, tmp_path, "dense", "sparse")
    for seed in range(3):
        (dense, sparse), stand_in = measure(script, targets, tmp_path / str(seed), seed=seed)
        assert stand_in.world.seconds == pytest.approx(seconds, rel=0.15)
        ratio = speed_up(dense, sparse)
        assert ratio is not None
        assert ratio.value == pytest.approx(1.5, rel=0.01)
        assert ratio.low < 1.5 < ratio.high
        # One after the other it would have been off by ten times as much.
        first = np.median(np.concatenate([one.model_ns for one in dense.rounds[:3]]))
        second = np.median(np.concatenate([one.model_ns for one in sparse.rounds[3:]]))
        assert abs(first / second / 1.5 - 1) > 0.05


def test_every_round_visits_every_row_once_and_backwards_next(package: Path, tmp_path: Path) -> None:
    targets = copies(package, tmp_path, "a", "b", "c", "d")
    orders = []
    for seed in (0, 0, 1):
        with installed(Script(predicts=False)) as stand_in, Reporter().steps("latency", 1) as steps:
            asked = InProcess(Bench(CoreMLRuntime(), stand_in.clock, stand_in.clock.wall))
            session = Session(
                machine(stand_in.clock), Protocol(rounds=4, predictions=1, seconds=0), tmp_path, seed=seed, again=True
            )
            session.run(targets, asked, steps)
        visits = [name for step, name in asked.steps if step == "visit"]
        orders.append([visits[start : start + 4] for start in range(0, 16, 4)])
    for order in orders:
        assert all(sorted(visited) == [target.name for target in targets] for visited in order)
        assert order[1] == order[0][::-1]
        assert order[3] == order[2][::-1]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_at_least_so_many_predictions_and_seconds(package: Path, tmp_path: Path) -> None:
    script = Script({"quick": Latency(ms=0.5), "slow": Latency(ms=40)}, predicts=False)
    quick, slow = measure(script, copies(package, tmp_path, "quick", "slow"), tmp_path)[0]
    for one in quick.rounds:
        assert sum(one.call_ns) >= 0.5e9
        assert len(one.call_ns) == pytest.approx(0.5e9 / 0.55e6, rel=0.02)
    assert {len(one.call_ns) for one in slow.rounds} == {50}
    assert all(len(one.warm_up_ns) >= FEWEST for one in (*quick.rounds, *slow.rounds))


def test_loads_are_apart_and_the_cold_one_is_remembered(package: Path, tmp_path: Path) -> None:
    script = Script(compile_ms=200, cold_load_ms=5000, cached_load_ms=50, predicts=False)
    (target,) = copies(package, tmp_path, "remembered")
    (first,), _ = measure(script, [target], tmp_path)
    assert (first.cold_load_ns, first.cached_load_ns) == (5_000_000_000, 50_000_000)
    (again,), stand_in = measure(script, [target], tmp_path, again=True)
    # The second run compiled nothing, and its first load was no cold one, whatever it took.
    assert (again.compile_ns, again.cold_load_ns) == (first.compile_ns, first.cold_load_ns)
    assert {path.parts[-3] for path in stand_in.world.loaded} == {"compiled"}


def test_batches(package: Path, tmp_path: Path) -> None:
    script = Script({"p": Latency(ms=2)}, predicts=False)
    (target,) = copies(package, tmp_path, "p")
    (record,), _ = measure(script, [type(target)(target.path, target.package, "all", 8)], tmp_path)
    found = summarize(record)
    assert found.median_ns.value == pytest.approx(16e6, rel=0.01)
    assert found.throughput == pytest.approx(8 / (16e-3 + 8 * 0.05e-3), rel=0.02)


# --- what a run leaves behind


def test_measured_rows_are_not_measured_again(package: Path, tmp_path: Path) -> None:
    targets = copies(package, tmp_path, "a", "b")
    with installed(Script(predicts=False)) as stand_in:
        first = run(stand_in, targets[:1], tmp_path, PROTOCOL)
        both = run(stand_in, targets, tmp_path, PROTOCOL)
        assert (first.measured, both.measured) == (1, 1)
        assert both.records[0] == first.records[0]
        assert run(stand_in, targets, tmp_path, PROTOCOL).measured == 0
        assert run(stand_in, targets, tmp_path, PROTOCOL, again=True).measured == 2
        # Another protocol is another row.
        assert run(stand_in, targets, tmp_path, PROTOCOL.model_copy(update={"rounds": 2})).measured == 2
    assert len(read_latency_records(tmp_path)) == 4


def test_a_stopped_run_goes_on_where_it_was(package: Path, tmp_path: Path) -> None:
    targets = copies(package, tmp_path, "a", "b")
    visits = Counter[str]()

    class Interrupted(InProcess):
        left = 5

        def ask(self, step, *arguments):
            if step == "visit":
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
                visits[arguments[0].name] += 1
            return super().ask(step, *arguments)

    with installed(Script(predicts=False)) as stand_in, Reporter().steps("latency", 1) as steps:
        for left in (5, 100):
            asked = Interrupted(Bench(CoreMLRuntime(), stand_in.clock, stand_in.clock.wall))
            asked.left = left
            session = Session(machine(stand_in.clock), PROTOCOL, tmp_path)
            if left == 5:
                with pytest.raises(KeyboardInterrupt):
                    session.run(targets, asked, steps)
                assert read_latency_records(tmp_path) == []
            else:
                records = session.run(targets, asked, steps).records
    assert visits == {target.name: PROTOCOL.rounds for target in targets}
    assert all(len(record.rounds) == PROTOCOL.rounds for record in records)
    assert all(record.notes == ("its rounds are of more than one run: the first was stopped",) for record in records)
    assert not list((tmp_path / "unfinished").rglob("*.json"))


def test_a_record_holds_every_sample(package: Path, tmp_path: Path) -> None:
    (record,), _ = measure(Script(predicts=False), copies(package, tmp_path, "p"), tmp_path)
    (path,) = (tmp_path / "latency").glob("*.json")
    assert read_latency_record(path) == record
    content = json.loads(path.read_text())
    assert len(content["rounds"]) == 6
    for one in content["rounds"]:
        assert len(one["call_ns"]) == len(one["model_ns"]) >= 50
        assert one["before"]["thermal"] == one["after"]["thermal"] == "nominal"
    assert content["provenance"]["packages"]["coremltools"] == "9.0"
    # A line a round, so that a difference between two records can be read.
    assert len(path.read_text().splitlines()) < 90


@pytest.mark.parametrize("damage", ["empty", "copied"])
def test_a_record_that_is_not_the_rows_is_measured_again(package: Path, tmp_path: Path, damage: str) -> None:
    targets = copies(package, tmp_path, "a", "b")
    measure(Script(predicts=False), targets, tmp_path)
    first, second = sorted((tmp_path / "latency").glob("*.json"))
    second.write_text("" if damage == "empty" else first.read_text())
    with installed(Script(predicts=False)) as stand_in:
        outcome = run(stand_in, targets, tmp_path, PROTOCOL)
    assert outcome.measured == 1
    assert [record.package.name for record in outcome.records] == ["a", "b"]
    assert read_latency_record(second).package.name == "b"
    assert second.with_name(f"{second.name}.damaged").is_file()


def test_a_row_that_fails_keeps_what_was_measured(package: Path, tmp_path: Path) -> None:
    script = Script(failures={"b": Failure("predict", at_call=3 * FEWEST + 2 * 20)}, predicts=False)
    protocol = Protocol(rounds=4, predictions=20, seconds=0)
    (good, failed), _ = measure(script, copies(package, tmp_path, "a", "b"), tmp_path, protocol)
    assert good.status == "measured"
    assert failed.reason == (
        "RuntimeError: Unable to compute the prediction using a neural network model. It can be an invalid input data "
        "or broken/unsupported model (error code: -1)."
    )
    assert 1 <= len(failed.rounds) < 4
    # The next run tries it again, from the start.
    (_, again), _ = measure(Script(predicts=False), copies(package, tmp_path, "a", "b"), tmp_path, protocol)
    assert (again.status, len(again.rounds)) == ("measured", 4)
    # Measured again and failing, it does not take the place of what was measured.
    (_, failed), _ = measure(script, copies(package, tmp_path, "a", "b"), tmp_path, protocol, again=True)
    assert failed.status == "failed"
    assert {record.status for record in read_latency_records(tmp_path)} == {"measured"}


# --- heat


def test_it_waits_while_the_machine_is_hot(package: Path, tmp_path: Path) -> None:
    slept: list[float] = []
    hot = states("nominal", "nominal", "serious", "fair", "nominal")
    with installed(Script(predicts=False)) as stand_in, Reporter().steps("latency", 1) as steps:
        session = Session(machine(stand_in.clock, hot, slept.append), PROTOCOL, tmp_path)
        bench = InProcess(Bench(CoreMLRuntime(), stand_in.clock, stand_in.clock.wall))
        (record,) = session.run(copies(package, tmp_path, "p"), bench, steps).records
    assert slept == [5.0, 5.0]
    assert all(one.before.thermal == "nominal" for one in record.rounds)


def test_it_does_not_wait_for_ever(package: Path, tmp_path: Path) -> None:
    slept: list[float] = []
    with installed(Script(predicts=False)) as stand_in, Reporter().steps("latency", 1) as steps:
        session = Session(machine(stand_in.clock, states("critical"), slept.append), PROTOCOL, tmp_path)
        bench = InProcess(Bench(CoreMLRuntime(), stand_in.clock, stand_in.clock.wall))
        (record,) = session.run(copies(package, tmp_path, "p"), bench, steps).records
    assert sum(slept) == COOL_DOWN_SECONDS
    assert record.status == "measured"
    assert "thermal state was critical" in summarize(record).warnings
