"""A whole run of a small suite: what it records, that it resumes, and that one failure costs one cell."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch

import coreml_prune_bench.bench.build.pruned
from coreml_prune_bench.accuracy.evaluate import evaluate
from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, build_all, run
from coreml_prune_bench.bench.suite import choose, load_suite
from coreml_prune_bench.data import load_images, open_data
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.models.weights import initial_model
from coreml_prune_bench.records.accuracy import read_record, read_records
from coreml_prune_bench.records.predictions import Predictions
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.report.accuracy_tables import render, rows
from tests.tiny_network import TINY

ROOT = Path(__file__).parents[2]


def again(suite: Path, results: Path, **choice):
    return run(lay_out(choose(load_suite(str(suite)), **choice), None), RunOptions(Store(results)))


@pytest.fixture
def copy_of_results(tiny_run, tiny_results, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_results, tmp_path / "results"))


def test_every_cell_is_measured_with_three_algorithms_and_two_trials(tiny_run):
    assert tiny_run.measured == 6
    assert not tiny_run.failed
    table = {(row["algorithm"], row["sparsity"]): row for row in rows(tiny_run.records)}
    assert set(table) == {
        ("dense", 0.0),
        ("post-training", 0.5),
        ("post-training", 0.75),
        ("sparse-gpt", 0.5),
        ("magnitude-pruner", 0.75),
    }
    assert table["magnitude-pruner", 0.75]["trials"] == 2
    assert table["magnitude-pruner", 0.75]["top1_std"] is not None
    assert all(row["images"] == 400 for row in table.values())


def test_training_works_and_pruning_costs_something_where_it_should(tiny_run):
    top1 = {(row["algorithm"], row["sparsity"]): row["top1_mean"] for row in rows(tiny_run.records)}
    assert top1["dense", 0.0] > 80
    assert top1["post-training", 0.75] < top1["dense", 0.0] - 10
    assert top1["magnitude-pruner", 0.75] > top1["post-training", 0.75] + 10


def test_a_record_holds_what_is_needed_to_judge_it(tiny_run):
    record = next(r for r in tiny_run.records if r.pruning.algorithm == "sparse-gpt")
    assert record.package
    assert record.predictions
    assert {layer.storage for layer in record.package.layers} == {"sparse"}
    assert all(layer.sparsity == pytest.approx(0.5, abs=0.01) for layer in record.package.layers)
    assert record.provenance.packages["coremltools"] == "9.0"
    assert record.runtime
    assert (record.runtime.name, record.runtime.precision) == ("portable", "float32")
    assert record.pruning.settings["calibration_samples"] == 32
    assert len(record.predictions.top5) == 400
    assert record.data.train_fingerprint
    assert record.provenance.trained_on


def test_the_accuracy_in_the_record_is_that_of_the_trained_network(tiny_run, tiny_results):
    """Independent of the package: torch, on the weights that the run trained."""
    (state_file,) = tiny_results.glob("artifacts/*/network.pt")
    model = initial_model(TINY, torch.load(state_file, weights_only=True), 10)
    val = open_data("digits").val
    with torch.no_grad():
        expected = model(normalize(load_images(val, np.arange(400), 32))).argmax(1).numpy()
    dense = next(r for r in tiny_run.records if r.pruning.algorithm == "dense")
    assert dense.predictions
    assert np.mean(np.array(dense.predictions.top5)[:, 0] == expected) >= 0.995


def test_running_again_measures_nothing_and_prints_the_same_table(tiny_run, tiny_suite, tiny_results):
    second = again(tiny_suite, tiny_results)
    assert second.measured == 0
    assert render(second.records) == render(tiny_run.records) == render(read_records(tiny_results))


def test_what_another_suite_measured_into_the_folder_is_a_row_of_the_one_that_is_run(
    tiny_suite, copy_of_results, tmp_path
):
    other = again(Path(shutil.copy(tiny_suite, tmp_path / "other.toml")), copy_of_results)
    assert other.measured == 0
    assert {record.suite for record in other.records} == {"other"}


def test_records_alone_are_enough_not_to_measure_again(tiny_suite, copy_of_results):
    shutil.rmtree(copy_of_results / "artifacts")
    assert again(tiny_suite, copy_of_results).measured == 0


def test_foreign_files_everywhere_train_and_measure_nothing_again(tiny_suite, tiny_run, copy_of_results, monkeypatch):
    """As after a look at the results in Finder, on a disk that a Windows machine shares."""
    for place in [copy_of_results, *copy_of_results.rglob("*")]:
        if place.is_dir():
            for name in (".DS_Store", "._weight.bin", "Thumbs.db", "desktop.ini"):
                (place / name).write_bytes(b"\0foreign")
        elif place.suffix == ".json" and place.name != "manifest.json":
            place.with_name(f"._{place.name}").write_bytes(b"\0foreign")
    assert again(tiny_suite, copy_of_results).measured == 0
    assert len(read_records(copy_of_results)) == len(tiny_run.records)
    for path in copy_of_results.glob("records/[!.]*.json"):
        path.unlink()
    monkeypatch.setattr(coreml_prune_bench.bench.build.pruned, "prune", None)  # pruning again would fail
    outcome = again(tiny_suite, copy_of_results)
    assert (outcome.measured, outcome.failed) == (6, [])
    assert [record.package for record in outcome.records] == [record.package for record in tiny_run.records]


def test_a_changed_config_measures_that_config_alone(tiny_suite, copy_of_results, tmp_path):
    changed = tmp_path / "tiny.toml"
    changed.write_text(tiny_suite.read_text().replace("calibration_samples = 32", "calibration_samples = 16"))
    assert again(changed, copy_of_results).measured == 1


def test_another_trial_measures_that_trial_alone(tiny_suite, copy_of_results):
    assert again(tiny_suite, copy_of_results, trials=3, algorithms=["magnitude-pruner"]).measured == 1


def test_a_missing_record_is_measured_from_the_package_that_is_there(tiny_suite, copy_of_results, monkeypatch):
    (path,) = copy_of_results.glob("records/*sparse-gpt*")
    path.unlink()
    monkeypatch.setattr(coreml_prune_bench.bench.build.pruned, "prune", None)  # pruning again would fail
    outcome = again(tiny_suite, copy_of_results)
    assert (outcome.measured, outcome.failed) == (1, [])


@pytest.mark.parametrize("damage", ["empty", "copied", "other images"])
def test_a_record_that_is_not_the_cells_is_set_aside_and_measured_again(
    tiny_run, tiny_suite, copy_of_results, capsys, damage
):
    (path,) = copy_of_results.glob("records/*sparse-gpt*")
    (other,) = copy_of_results.glob("records/*dense*")
    record = read_record(path)
    wrong = {
        "empty": "",
        "copied": other.read_text(),
        "other images": record.model_copy(
            update={"predictions": Predictions(labels=record.predictions.labels[1:], top5=record.predictions.top5[1:])}
        ).to_json(),
    }[damage]
    path.write_text(wrong)
    outcome = again(tiny_suite, copy_of_results)
    assert (outcome.measured, outcome.failed) == (1, [])
    rows, before = (render(one.records).splitlines() for one in (outcome, tiny_run))
    assert sorted(rows) == sorted(before)  # what is measured last comes last
    aside = path.with_name(f"{path.name}.damaged")
    assert aside.read_text() == wrong
    assert read_record(path).predictions == record.predictions
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: "))
    assert path.name in line
    assert f"; set aside as {aside.name}, to be measured again" in line


def test_a_cell_that_fails_is_recorded_with_its_reason_and_the_others_go_on(tiny_suite, copy_of_results, monkeypatch):
    for path in copy_of_results.glob("records/*post-training*"):
        path.unlink()
    shutil.rmtree(copy_of_results / "artifacts")

    def broken(config, job):
        raise ZeroDivisionError("made to fail")

    prune = coreml_prune_bench.bench.build.pruned.prune
    monkeypatch.setattr(
        coreml_prune_bench.bench.build.pruned, "prune", lambda c, j: (broken if c.sparsity == 0.5 else prune)(c, j)
    )
    outcome = again(tiny_suite, copy_of_results)
    (failed,) = outcome.failed
    assert failed.reason
    assert failed.reason.startswith("ZeroDivisionError: made to fail")
    assert "Traceback" in failed.reason
    assert outcome.measured == 2
    assert "| failed " in render(outcome.records)
    monkeypatch.undo()
    assert again(tiny_suite, copy_of_results).failed == []  # a failed cell is tried again


def test_packages_alone_can_be_built(tiny_suite, copy_of_results):
    cells = lay_out(choose(load_suite(str(tiny_suite)), algorithms=["post-training"]), None)
    built, problems = build_all(cells, RunOptions(Store(copy_of_results)))
    assert problems == []
    assert [path.name for _, path in built] == ["tiny.mlpackage"] * 3
    (predictions,), skipped = evaluate([built[0][1]], open_data("digits").val)
    assert predictions.top1 > 0.8
    assert skipped == ()


def test_a_suite_may_have_images_enlarged(tiny_suite, tmp_path):
    suite = tmp_path / "enlarged.toml"
    suite.write_text("image_size = 48\n" + tiny_suite.read_text())
    cells = lay_out(choose(load_suite(str(suite)), algorithms=["post-training"]), None)
    store = Store(tmp_path / "results")
    built, _ = build_all(cells[:1], RunOptions(store))
    assert ct.utils.load_spec(str(built[0][1])).description.input[0].type.imageType.width == 48
    record = run(cells[:1], RunOptions(store)).records[0]
    assert record.data.image_size == 48
    assert record.predictions.top1 > 0.8  # trained and measured at that size


# As from a terminal: a process inherits an ignored Ctrl-C from one that runs in the background.
_RUN = """
import signal
import sys
import tests.tiny_network
from coreml_prune_bench.cli.app import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["run_bench.py", "run", "--suite", sys.argv[1], "--results", sys.argv[2], "--format", "json"]
main()
"""


def start(suite: Path, results: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _RUN, str(suite), str(results)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_table(tiny_run, tiny_suite, tmp_path, how):
    results = tmp_path / "results"
    process = start(tiny_suite, results)
    deadline = time.monotonic() + 120
    while len(list(results.glob("records/*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert errors.splitlines()[-1].startswith("error: interrupted")
        assert not list(results.rglob("*.tmp"))
    before = {path: os.stat(path).st_mtime_ns for path in results.glob("records/*.json")}
    resumed = again(tiny_suite, results)
    assert resumed.measured == 6 - len(before)
    assert {path: os.stat(path).st_mtime_ns for path in before} == before
    assert render(resumed.records) == render(tiny_run.records)
