"""Tables of latency records: speed-up beside each row, honest labels, and the published medians with their device."""

import csv
import io
import json

import pytest

from coreml_prune_bench.latency.placement import summed_up
from coreml_prune_bench.records.accuracy import Runtime
from coreml_prune_bench.records.latency import Placement, PlannedOperation, State
from coreml_prune_bench.records.provenance import provenance
from coreml_prune_bench.report.answer import medians
from coreml_prune_bench.report.latency_captions import PUBLISHED_DEVICE
from coreml_prune_bench.report.latency_tables import render, render_operations, rows
from tests.latency.records import ONE_RUN, one_round, record
from tests.latency.sessions import COOL

ENGINE, CPU = ("cpu", "gpu", "neural_engine"), ("cpu",)


def placed() -> Placement:
    return summed_up(
        [
            PlannedOperation(name="a", type="conv", preferred="neural_engine", supported=ENGINE, cost=0.6),
            PlannedOperation(name="b", type="relu", preferred="neural_engine", supported=ENGINE, cost=0.2),
            PlannedOperation(name="c", type="gather", preferred="cpu", supported=CPU, cost=0.2),
        ]
    )


DENSE = record([0.6, 0.6, 0.6], [0.6, 0.6, 0.6], algorithm="dense", name="dense", placement=placed())
SPARSE = record([0.4, 0.4, 0.4], [0.4, 0.4, 0.4], algorithm="sparse-gpt", name="sparse", placement=placed())
FAILED = record(algorithm="post-training", name="failed", status="failed", reason="hung: no sign of life for 900 s")


def test_packages_of_two_runs_have_no_speed_up_and_the_table_says_why() -> None:
    later = SPARSE.model_copy(update={"provenance": provenance()})
    assert [row["speed_up"] for row in rows([DENSE, later])] == [None, None]
    told = "no speed-up, since another run timed the dense package; `latency --again` times both in turns"
    assert told in render([DENSE, later])
    assert told not in render([DENSE, SPARSE])


def test_the_report_has_medians_of_one_protocol_in_a_column_the_newest() -> None:
    older, newer = (
        SPARSE.model_copy(
            update={"provenance": ONE_RUN.model_copy(update={"created": day}), "rounds": (one_round([ms]),)}
        )
        for day, ms in (("2026-01-01", 0.5), ("2026-02-01", 0.4))
    )
    batch = older.model_copy(update={"protocol": older.protocol.model_copy(update={"batch_size": 8})})
    portable = older.model_copy(update={"runtime": older.runtime.model_copy(update={"name": "portable"})})
    where = f"{older.device.name}, all"
    expected = {where: 0.4, f"{where}, batch 8": 0.5, f"{where}, portable": 0.5}
    for records in ([older, newer, batch, portable], [batch, portable, newer, older]):
        assert {name: of["sparse"] for name, of in medians(records).items()} == pytest.approx(expected)


def test_rows_hold_plain_numbers() -> None:
    dense, sparse, failed = rows([DENSE, SPARSE, FAILED])
    assert (dense["median_ms"], sparse["median_ms"], failed["median_ms"]) == (0.6, 0.4, None)
    assert dense["speed_up"] is None
    assert sparse["speed_up"] == pytest.approx(1.5)
    assert sparse["call_median_ms"] == pytest.approx(0.5)
    assert sparse["throughput"] == pytest.approx(2000)
    assert (sparse["compile_ms"], sparse["cold_load_ms"], sparse["cached_load_ms"]) == (210, 3000, 42)
    assert sparse["planned_neural_engine"] == pytest.approx(2 / 3)
    assert sparse["planned_neural_engine_cost"] == pytest.approx(0.8)
    assert (sparse["sparsity"], sparse["compute_units"], sparse["chip"]) == (0.5, "all", "Apple M2 Pro")
    assert (failed["status"], failed["reason"]) == ("failed", "hung: no sign of life for 900 s")
    # The published MobileNetV2: 0.48 dense, 0.46 at 50 %.
    assert (dense["published_median_ms"], sparse["published_median_ms"]) == (0.48, 0.46)


def test_speed_up_is_over_the_same_compute_units_and_protocol() -> None:
    cpu = SPARSE.model_copy(update={"runtime": SPARSE.runtime.model_copy(update={"compute_units": "cpu_only"})})
    batch = SPARSE.model_copy(update={"protocol": SPARSE.protocol.model_copy(update={"batch_size": 8})})
    assert [row["speed_up"] for row in rows([DENSE, cpu, batch])] == [None, None, None]


def test_published_medians_are_for_imagenets_networks_only() -> None:
    other = SPARSE.model_copy(update={"package": SPARSE.package.model_copy(update={"classes": 10, "image_size": 32})})
    assert rows([other, record([1])])[0]["published_median_ms"] is None


def test_the_readable_table() -> None:
    text = render([DENSE, SPARSE, FAILED])
    assert "Core ML on MacBook Pro (Mac14,9), Apple M2 Pro, macOS 15.5 (24F74)" in text
    assert "| 0.400 (0.400 to 0.400) |" in text
    assert "1.50 (1.50 to 1.50)" in text
    assert "failed: hung: no sign of life for 900 s" in text
    assert "| 67, 0, 33 % (80, 0, 20 %)" in text
    assert "no observation" in text
    assert "1 of 3 operations are planned elsewhere: c (gather, on CPU, supported by CPU)" in text
    assert "Published" not in text
    assert render([DENSE, SPARSE], "latex").startswith("% Latency")


def test_the_published_device_is_named() -> None:
    text = render([DENSE, SPARSE], published=True)
    assert f"Published: {PUBLISHED_DEVICE}; another device than here." in text
    assert "| Published" in text
    assert "0.46" in text


def test_a_portable_number_names_its_processor() -> None:
    portable = record(
        [1, 1],
        runtime=Runtime(name="portable", version="onnxruntime 1.32.0", compute_units="cpu"),
        device=DENSE.device.model_copy(update={"chip": "AMD EPYC", "os": "Linux"}),
        rounds=(one_round([1, 1], told=False),),
    )
    text = render([portable, DENSE])
    ours, apples = text.split("\n\nLatency in ms, Core ML")
    assert "the portable runtime on the processor AMD EPYC (not Core ML" in ours
    assert "| portable, AMD EPYC |" in ours
    assert "Planned" not in ours
    assert "AMD EPYC" not in apples


def test_state_before_and_after() -> None:
    hot = State(thermal="serious", low_power=True, on_battery=True, battery_percent=64)
    rounds = (one_round([1, 1], before=COOL, after=COOL), one_round([1, 1], before=COOL, after=hot))
    text = render([record(rounds=rounds)])
    assert "nominal, AC → serious, low power, battery 64 %" in text
    assert "p, all: thermal state was serious" in text
    unknown = (one_round([1, 1], before=State(), after=State()),)
    assert "| unknown" in render([record(rounds=unknown)])


def test_what_is_true_of_all_rows_is_said_once() -> None:
    notes = ("every load on the device is a cold one",)
    text = render([record([1, 1], name="a", notes=notes), record([1, 1], name="b", notes=notes)])
    assert text.count("every load on the device is a cold one") == 1
    assert "all rows: every load" in text


def test_machine_readable_forms() -> None:
    records = [DENSE, SPARSE, FAILED]
    assert json.loads(render(records, "json"))[1]["speed_up"] == pytest.approx(1.5)
    table = list(csv.DictReader(io.StringIO(render(records, "csv"))))
    assert [row["status"] for row in table] == ["measured", "measured", "failed"]
    assert float(table[1]["median_ms"]) == 0.4


def test_operations_with_their_share_of_the_time() -> None:
    found = json.loads(render_operations(SPARSE, "json"))
    assert [row["estimated_ms"] for row in found] == pytest.approx([0.24, 0.08, 0.08])
    assert found[2]["supported_on"] == "CPU"
    text = render_operations(SPARSE)
    assert "planned, not observed" in text
    assert "estimated" in text
    assert "| c           | gather | CPU" in text
    assert render_operations(record([1])) == "p, all: no compute plan"
