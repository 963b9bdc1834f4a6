"""pytest-benchmark's JSON, read by pytest-benchmark itself."""

import json
import subprocess
import sys

import pytest
from pytest_benchmark.stats import Stats

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.report.benchmark_json import to_benchmark_json
from tests.factories import latency_record, noisy_rounds


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 22, 23, 24, 25])
def test_every_statistic_is_the_one_of_pytest_benchmark(samples):
    record = latency_record(noisy_rounds(2e6, rounds=1, samples=samples))
    (benchmark,) = to_benchmark_json([record])["benchmarks"]
    expected = Stats()
    for nanoseconds in record.rounds[0].model_ns:
        expected.update(nanoseconds / 1e9)
    found = benchmark["stats"]
    assert found.pop("data") == expected.data
    assert found.pop("iterations") == 1
    assert found.pop("outliers") == expected.outliers
    wanted = expected.as_dict()
    del wanted["outliers"]
    assert found == pytest.approx(wanted, rel=1e-9)


def test_pytest_benchmark_compares_two_files(tmp_path):
    for number, median in ((1, 2e6), (2, 3e6)):
        records = [
            latency_record(noisy_rounds(median), compute_units=units, created=f"2026-01-0{number}")
            for units in ("all", "cpu_only")
        ]
        (tmp_path / f"000{number}_run.json").write_text(json.dumps(to_benchmark_json(records)))
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "--storage", str(tmp_path), "compare", "--columns=median,rounds"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("resnet50.mlpackage[cpu_only]") == 2
    assert "4 benchmarks" in done.stdout + done.stderr or "4 tests" in done.stdout
    assert "210" in done.stdout


def test_time_around_the_call_is_used_and_named_where_the_runtime_tells_none():
    (benchmark,) = to_benchmark_json([latency_record([[1000, 2000, 3000]], model_time=False)])["benchmarks"]
    assert benchmark["extra_info"]["time"] == "call"
    assert benchmark["stats"]["median"] == pytest.approx(3000e-9)  # 2000 and the call's 1000


def test_failed_records_alone_are_refused():
    with pytest.raises(BenchError, match="no measured latency"):
        to_benchmark_json([latency_record([], status="failed", reason="r")])
