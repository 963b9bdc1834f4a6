"""What is measured besides latency, held against a scripted Mac: waking up, energy, memory, cold loads, QoS."""

import functools
import json
from pathlib import Path

import pytest

from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.latency.bench import Runtime
from coreml_prune_bench.latency.runtimes import CoreMLRuntime, PortableRuntime
from coreml_prune_bench.latency.session import Session
from coreml_prune_bench.latency.statistics import TOTAL, energy_mj, wake_ns
from coreml_prune_bench.latency.worker import Workers
from coreml_prune_bench.records.latency import IDLE_SECONDS, LatencyRecord, Protocol
from coreml_prune_bench.report.latency_tables import render, rows
from coreml_prune_bench.testing import Clock, Latency, Script
from coreml_prune_bench.testing.system import enter_with_real_time, mac
from tests.latency.sessions import copies, machine, measure, run

SHORT = Protocol(rounds=2, predictions=3, seconds=0)
METER = {"neural_engine": 3.5, "cpu": 1.2}


def on_mac(script: Script, package: Path, results: Path, **options: object) -> LatencyRecord:
    """A session in this process, with the tools, libraries and time of a scripted Mac."""
    with mac(script) as stand_in:
        return run(stand_in, copies(package, results, "m"), results, SHORT, **options).records[0]


def test_waking_up_is_measured_as_it_was_scripted(package: Path, tmp_path: Path) -> None:
    script = Script({"m": Latency(ms=2)}, rewake_ms=260)  # after 4 s
    (record,), _ = measure(script, copies(package, tmp_path, "m"), tmp_path, SHORT, besides=["wake"])
    found = {one.idle_s: wake_ns(record, one.idle_s) / 1e6 for one in record.wake}
    assert found == pytest.approx({0: 2, 1: 2, 5: 262, 30: 262}, rel=0.05)
    assert tuple(found) == IDLE_SECONDS
    (row,) = rows([record])
    assert row["wake_30_s_ms"] == pytest.approx(262, rel=0.05)
    assert "2.0, 262" in render([record])
    assert max(record.rounds[0].model_ns or (0,)) < 2.2e6, "rounds know nothing of it"


def test_energy_is_without_what_the_machine_takes_anyway(package: Path, tmp_path: Path) -> None:
    script = Script({"m": Latency(ms=2)}, energy_mj=METER, idle_mw={"neural_engine": 10, "gpu": 20, "cpu": 1500})
    record = on_mac(script, package, tmp_path, besides=["energy"])
    found = {name: one.value for name, one in energy_mj(record.energy).items()}
    assert found == pytest.approx({**METER, "gpu": 0, TOTAL: 4.7}, rel=0.05, abs=0.01)
    total = energy_mj(record.energy)[TOTAL]
    assert total.low <= total.value <= total.high
    (row,) = rows([record])
    assert (row["energy_mj"], row["energy_neural_engine_mj"]) == (total.value, found["neural_engine"])
    assert "mJ a Prediction" in render([record])


def test_one_window_has_no_interval_and_says_nothing() -> None:
    assert energy_mj(()) == {}


@pytest.mark.parametrize("besides", [["energy"], ["energy", "wake"]])
def test_what_cannot_be_measured_is_a_note_and_the_rest_is_measured(package: Path, tmp_path: Path, besides) -> None:
    record = on_mac(Script({"m": Latency(ms=2)}), package, tmp_path, besides=besides)
    assert (record.status, record.energy, bool(record.wake)) == ("measured", (), "wake" in besides)
    assert "no energy: No module named 'zeus_apple_silicon'" in record.notes[0]
    assert "coreml-prune-bench[energy]" in render([record])


def _mac_runtime(script: Script) -> Runtime:
    enter_with_real_time(script)
    return CoreMLRuntime()


@pytest.mark.slow
def test_memory_and_cold_loads_are_those_of_processes_of_their_own(package: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    script = Script(cold_load_ms=5000, cached_load_ms=50, memory_mib=(40, 55), home=str(home))
    session = Session(machine(Clock()), SHORT, tmp_path, besides=["memory", "cold"])
    with (
        Reporter().steps("latency", 1) as steps,
        Workers(functools.partial(_mac_runtime, script), limit_s=60) as workers,
    ):
        (record,) = session.run(copies(package, tmp_path, "m"), workers, steps).records
    assert record.memory is not None
    assert (record.memory.load_peak_bytes, record.memory.predict_peak_bytes) == (40 << 20, 55 << 20)
    assert record.cold_loads_ns == (5_000_000_000,) * 3
    text = render([record])
    assert "40, 55" in text
    assert "5,000 to 5,000, 50" in text


def test_linux_says_what_a_process_holds(package: Path, tmp_path: Path) -> None:
    """Of the portable runtime, and there are no cold loads: the system has no cache of what it loaded."""
    session = Session(machine(Clock()), SHORT, tmp_path, besides=["memory", "cold"])
    targets = copies(package, tmp_path, "m", units="cpu")
    with Reporter().steps("latency", 1) as steps, Workers(PortableRuntime, limit_s=60) as workers:
        (record,) = session.run(targets, workers, steps).records
    assert record.memory is not None
    assert 0 < record.memory.load_peak_bytes <= record.memory.predict_peak_bytes < 1 << 30
    assert record.cold_loads_ns == ()
    assert any("no cold loads" in note for note in record.notes)


def test_what_is_asked_for_later_is_added_and_rounds_are_not_measured_again(package: Path, tmp_path: Path) -> None:
    script, targets = Script(rewake_ms=260), copies(package, tmp_path, "m")
    (first,), _ = measure(script, targets, tmp_path, SHORT)
    (second,), _ = measure(script, targets, tmp_path, SHORT, besides=["wake"])
    assert (second.rounds, second.key) == (first.rounds, first.key)
    assert second.wake
    (third,), stand_in = measure(script, targets, tmp_path, SHORT, besides=["wake"])
    assert (third, stand_in.world.predictions) == (second, 0)
    (fourth,), stand_in = measure(script, targets, tmp_path, SHORT)
    assert (fourth, stand_in.world.predictions) == (second, 0)


def test_a_class_of_service_is_set_recorded_and_another_protocol(package: Path, tmp_path: Path) -> None:
    script = Script({"m": Latency(ms=2)}, qos_factors={"background": 3.0})
    usual = on_mac(script, package, tmp_path)
    protocol = SHORT.model_copy(update={"qos": "background"})
    with mac(script) as stand_in:
        background = run(stand_in, copies(package, tmp_path, "m"), tmp_path, protocol).records[0]
    assert (usual.qos, background.qos) == ("default", "background")
    assert usual.key != background.key
    medians = [row["median_ms"] for row in rows([usual, background])]
    assert medians == pytest.approx([2, 6], rel=0.05)


def test_a_visit_during_which_the_machine_slept_is_made_again(package: Path, tmp_path: Path) -> None:
    script = Script({"m": Latency(ms=2)}, sleeps_at_s=20, sleeps_for_s=3600)
    (record,), stand_in = measure(script, copies(package, tmp_path, "m"), tmp_path, SHORT, besides=["wake"])
    assert stand_in.world.slept
    assert [len(one.call_ns) for one in record.wake] == [3, 3, 3, 3]
    assert max(call for one in record.wake for call in one.call_ns) < 3e6


def test_the_record_is_read_back_alike(package: Path, tmp_path: Path) -> None:
    record = on_mac(Script(energy_mj=METER), package, tmp_path, besides=["energy", "wake"])
    assert LatencyRecord.model_validate(json.loads(record.to_json())) == record
