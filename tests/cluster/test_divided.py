"""Cells whose images are divided among tasks: the records are those of one process."""

import os
import shutil

import dask
import pytest

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.cluster.client import HowOnCluster
from coreml_prune_bench.cluster.connect import Where
from coreml_prune_bench.cluster.image_parts import in_words, joined, parts_of_size
from coreml_prune_bench.cluster.run import Elsewhere
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.records.accuracy import read_records
from coreml_prune_bench.records.predictions import Predictions
from coreml_prune_bench.records.store import Store
from tests.cluster import failing_parts
from tests.cluster.test_run import SMALL, SMALLEST, assert_like, in_process, json_of, names, one_processor  # noqa: F401  (a fixture)

PART_IMAGES = 150


class Heard(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, line):
        self.lines.append(line)

    def warn(self, line):
        self.lines.append(f"warning: {line}")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are fixed on Linux alone")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_in_parts_records_are_those_of_one_process(one_processor, tmp_path, monkeypatch, workers):  # noqa: F811
    suite = tmp_path / "small.toml"
    suite.write_text(SMALLEST)
    expected, results = in_process(suite, tmp_path / "here"), tmp_path / "there"
    cells = lay_out(load_suite(str(suite)), None)
    assert len(parts_of_size(len(cells[0].subject.data.val), PART_IMAGES)) == 3
    how, heard = HowOnCluster(threads=1, part_images=PART_IMAGES), Heard()
    with (
        dask.config.set({"distributed.worker.preload": ["tests.tiny_network"]}),
        Elsewhere(Where(f"local:{workers}", tmp_path), how, "auto", results) as others,
    ):
        measure = others.on(SuiteChoice(str(suite)), cells).measure
        assert run(cells, RunOptions(Store(results), heard), measure).measured == len(cells)
        records = read_records(results)
        assert json_of(records) == expected
        assert_like(records, tmp_path / "here")
        for record in records:
            assert record.provenance.evaluate_seconds > 0
            assert record.provenance.build_seconds > 0
        assert names(results) == names(tmp_path / "here")
        # Packages that are there are not built again.
        made = {path: path.stat().st_mtime_ns for path in results.glob("artifacts/*/manifest.json")}
        shutil.rmtree(results / "records")
        assert run(cells, RunOptions(Store(results), heard), measure).measured == len(cells)
        assert json_of(read_records(results)) == expected
        assert {path: path.stat().st_mtime_ns for path in results.glob("artifacts/*/manifest.json")} == made
    assert [line for line in heard.lines if "warning" in line] == []


@pytest.mark.slow
def test_a_part_that_fails_or_ends_its_worker_three_times_costs_its_cell_alone(tmp_path):
    suite, results = tmp_path / "small.toml", tmp_path / "results"
    suite.write_text(SMALL)
    cells = lay_out(load_suite(str(suite)), None)
    with (
        dask.config.set({"distributed.worker.preload": ["tests.cluster.failing_parts"]}),
        Elsewhere(Where("local:1", tmp_path), HowOnCluster(part_images=PART_IMAGES), "auto", results) as others,
    ):
        outcome = run(cells, RunOptions(Store(results)), others.on(SuiteChoice(str(suite)), cells).measure)
    reasons = {record.pruning.sparsity: record.reason for record in outcome.records}
    assert reasons == {0: None, 0.5: failing_parts.WHY, 0.75: "its worker ended 3 times: on local-1"}
    # What is wrong with an evaluation does not cost the package, which may have been trained for hours.
    (failed,) = [cell for cell in cells if cell.config and cell.config.sparsity == 0.5]
    assert Store(results).found(failed.build_key)


def test_parts_come_together_in_the_order_of_the_images():
    whole = Predictions(labels=tuple(range(9)), top5=tuple((n, 9) for n in range(9)))
    some = [
        Predictions(labels=whole.labels[part.start : part.stop], top5=whole.top5[part.start : part.stop])
        for part in parts_of_size(9, 4)
    ]
    assert [len(one.labels) for one in some] == [4, 4, 1]
    assert joined(some) == whole
    assert in_words(range(4096, 8192)) == "images 4,097 to 8,192"
