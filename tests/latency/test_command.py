"""The `latency` command: on a scripted Mac, in the portable runtime, and where there is no Core ML."""

import contextlib
import functools
import json
from pathlib import Path

import pytest

from coreml_prune_bench.bench.run import Outcome
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency import machines
from coreml_prune_bench.latency.bench import Bench
from coreml_prune_bench.latency.runtimes import CoreMLRuntime
from coreml_prune_bench.latency.targets import packages_of_suite
from coreml_prune_bench.latency.worker import StepFailedError
from coreml_prune_bench.records.latency import read_latency_records
from coreml_prune_bench.runtimes.coreml import said
from coreml_prune_bench.testing import Clock, Failure, Latency, Script, installed
from tests.latency.macos import tool_of

QUICK = ("--rounds", 2, "--predictions", 20, "--seconds", 0)


class InThisProcess:
    """In the place of worker processes, so that the command runs on the scripted clock."""

    clock = Clock()

    def __init__(self, open_runtime, *, limit_s: float, count: int = 1) -> None:
        self._bench: Bench | None = None

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def ask(self, step, *arguments):
        self._bench = self._bench or Bench(CoreMLRuntime(), self.clock, self.clock.wall)
        try:
            return [getattr(self._bench, step)(*arguments)]
        except Exception as error:
            raise StepFailedError(said(error)) from error


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch):
    """A function that scripts the Mac that the command runs on."""
    from coreml_prune_bench.latency import worker

    with contextlib.ExitStack() as stack:

        def script(told: Script, name: str = "m2pro-macos15") -> None:
            here = functools.partial(machines.this_machine, tool=tool_of(name), system="darwin")
            monkeypatch.setattr(machines, "this_machine", here)
            monkeypatch.setattr(worker, "Workers", InThisProcess)
            stack.enter_context(installed(told, InThisProcess.clock))

        yield script


def test_a_package_on_a_mac(run_bench, mac, package: Path, tmp_path: Path) -> None:
    mac(Script({"tiny": Latency(ms=2), "tiny cpu_only": Latency(ms=6)}, predicts=False, placement={"linear": "gpu"}))
    command = ("latency", package, "--compute-units", "all,cpu_only", "--results", tmp_path, *QUICK)
    code, output, errors = run_bench(*command)
    assert code == 0, errors
    assert "Core ML on MacBook Pro (Mac14,9), Apple M2 Pro, macOS 15.5 (24F74), coremltools 9.0: median" in output
    assert "1 of 12 operations are planned elsewhere: logits" in output
    assert "all rows: ran on battery" in output
    assert "2 of 2 rows measured now" in errors
    table = json.loads(run_bench(*command, "--format", "json")[1])
    assert [row["compute_units"] for row in table] == ["all", "cpu_only"]
    assert [row["median_ms"] for row in table] == pytest.approx([2, 6], rel=0.02)
    assert table[0]["planned_neural_engine"] == pytest.approx(11 / 12)
    assert table[1]["planned_neural_engine"] == 0
    code, output, errors = run_bench(*command, "--per-op")
    assert "0 of 2 rows measured now" in errors
    assert "planned, not observed" in output
    assert "| Estimated cost" in output


def test_a_failed_row_is_exit_code_1(run_bench, mac, package: Path, tmp_path: Path) -> None:
    mac(Script(failures={"tiny cpu_only": Failure("predict")}, predicts=False))
    code, output, errors = run_bench(
        "latency", package, "--compute-units", "cpu_only,all", "--results", tmp_path, *QUICK
    )
    assert code == 1
    assert "failed: Unable to compute the prediction" in output
    assert "failed: tiny, cpu_only: Unable to compute the prediction" in errors
    assert {record.status for record in read_latency_records(tmp_path)} == {"failed", "measured"}


def test_a_suite_from_its_records(run_bench, mac, tiny_run: Outcome, tiny_results: Path) -> None:
    """What `run` left is enough: no data set, no weights. Speed-up is over the dense package of the same network."""
    found = packages_of_suite(tiny_results, "tiny")
    algorithms = [package.pruning.algorithm for _, package in found if package.pruning]
    assert algorithms == ["dense", "post-training", "post-training", "sparse-gpt", "magnitude-pruner"]
    assert all(path.is_dir() for path, _ in found)
    mac(Script(predicts=False))
    command = ("latency", "--suite", "tiny", "--compute-units", "all", "--results", tiny_results, *QUICK)
    code, output, errors = run_bench(*command, "--format", "json")
    assert code == 0, errors
    table = json.loads(output)
    assert [row["algorithm"] for row in table] == algorithms
    assert table[0]["speed_up"] is None
    assert all(row["speed_up"] == pytest.approx(1, rel=0.02) for row in table[1:])
    assert all(row["published_median_ms"] is None for row in table)  # of ten classes and 32x32 images


def test_packages_that_another_suite_measured_are_of_both(tiny_run: Outcome, tiny_results: Path) -> None:
    """What is there already `run` does not measure again, so its record says the first suite's name."""
    dense, half = (("tiny", "dense", "Float16"), ("tiny", "post-training", "Unstructured Sparsity 50%"))
    found = packages_of_suite(tiny_results, "mine", cells={dense, half})
    assert [package.pruning.algorithm for _, package in found if package.pruning] == ["dense", "post-training"]
    with pytest.raises(BenchError, match="of suite mine"):
        packages_of_suite(tiny_results, "mine", cells={("other", "dense", "Float16")})


def test_pytest_benchmarks_format(run_bench, mac, package: Path, tmp_path: Path) -> None:
    pytest.importorskip("coreml_prune_bench.report.benchmark_json")
    mac(Script(predicts=False))
    file = tmp_path / "bench.json"
    code, _, errors = run_bench("latency", package, "--results", tmp_path, "--benchmark-json", file, *QUICK)
    assert code == 0, errors
    assert json.loads(file.read_text())["benchmarks"]


def test_the_portable_runtime_names_the_processor(run_bench, package: Path, tmp_path: Path) -> None:
    """In a worker process, on the real clock."""
    chip = machines.this_machine("portable")[0].device.chip
    command = ("latency", package, "--runtime", "portable", "--results", tmp_path, *QUICK)
    code, output, errors = run_bench(*command)
    assert code == 0, errors
    assert f"the portable runtime on the processor {chip} (not Core ML" in output
    assert f"| portable, {chip} |" in output
    (record,) = read_latency_records(tmp_path)
    assert record.runtime.name == "portable"
    assert all(one.model_ns is None for one in record.rounds)
    assert record.cold_load_ns
    assert record.cached_load_ns
    assert record.placement is None


# --- what is refused


def test_without_core_ml_it_says_so(refused, package: Path, tmp_path: Path) -> None:
    line = refused("latency", package, "--results", tmp_path)
    assert "Core ML is not on this machine (Linux)" in line
    assert "--runtime portable" in line
    assert not list(tmp_path.iterdir())
    assert "Core ML is not on this machine" in refused("latency", "--suite", "imagenet", "--results", tmp_path)


def test_choices_that_cannot_be(refused, package: Path, tmp_path: Path) -> None:
    assert "one of both" in refused("latency")
    assert "one of both" in refused("latency", package, "--suite", "quick")
    assert "expected one of all, cpu_and_ne" in refused("latency", package, "--compute-units", "ane")
    assert "leave out --compute-units" in refused("latency", package, "--runtime", "portable", "--compute-units", "all")
    assert "expected a number from 1 on" in refused("latency", package, "--batch-size", "1,zero")
    assert "leave out --batch-size" in refused("latency", package, "--device", "iPhone", "--batch-size", 2)
    portable = ("--runtime", "portable", "--results", tmp_path)
    assert "expected a .mlpackage or .aimodel folder" in refused("latency", tmp_path / "none.mlpackage", *portable)
    assert "no records in" in refused("latency", "--suite", "imagenet", *portable)


def test_a_results_folder_without_its_packages(refused, tiny_run: Outcome, tiny_results: Path, tmp_path: Path) -> None:
    (tmp_path / "records").symlink_to(tiny_results / "records")
    line = refused("latency", "--suite", "tiny", "--runtime", "portable", "--results", tmp_path)
    assert "lacks the packages of tiny dense Float16" in line


# --- before anything is measured


def test_a_dry_run_of_imagenet(run_bench, tmp_path: Path) -> None:
    """Everywhere, before the packages are built: 3 networks, dense and in 6 configs, on 2 choices of compute units."""
    code, output, _ = run_bench("latency", "--suite", "imagenet", "--dry-run", "--results", tmp_path)
    assert code == 0
    assert "rows: 42: 21 packages of suite imagenet" in output
    assert "rounds: 6" in output
    assert "until it is steady (MSER-5)" in output
    # A row: 30 calls of warm-up, and in each of 6 rounds 30 more and 50 that count.
    assert f"predictions: at least {42 * (30 + 6 * (30 + 50)):,}" in output
    # 10 s to load, and 6 visits of 2 s: 42 rows take 15 minutes.
    assert "estimated time: 15 min" in output
    assert not list(tmp_path.iterdir())


def test_a_dry_run_knows_what_earlier_ones_took(run_bench, mac, package: Path, tmp_path: Path) -> None:
    mac(Script({"tiny": Latency(ms=100)}, compile_ms=0, cold_load_ms=59_000, cached_load_ms=900, predicts=False))
    run_bench("latency", package, "--compute-units", "all", "--results", tmp_path, *QUICK)
    command = ("latency", package, "--compute-units", "all", "--dry-run", "--results", tmp_path)
    output = run_bench(*command, "--rounds", 2, "--predictions", 100, "--seconds", 1)[1]
    # 60 s of loads, and at 0.1 s a call 30 calls of warm-up and twice 130.
    assert "estimated time: 1 min" in output
    assert "as loads and predictions took in earlier records" in output
    on_device = run_bench("latency", package, "--device", "iPhone", "--dry-run", "--results", tmp_path)[1]
    assert "warmed up 3 calls" in on_device
