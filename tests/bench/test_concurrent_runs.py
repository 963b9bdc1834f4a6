"""Runs that share one results folder, and are killed: nothing is lost, and the table is that of an undisturbed run."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.records.accuracy import Record, read_records
from coreml_prune_bench.records.predictions import Predictions
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.report.accuracy_tables import render
from tests.factories import accuracy_record, failed_record

_SUITE = """
description = "a network that trains in a second"
models = ["tiny"]
weights = "none"
trials = 1
[data]
default = "digits"
[training]
epochs = 1
[[configs]]
algorithm = "post-training"
sparsity = 0.5
[[configs]]
algorithm = "magnitude-pruner"
sparsity = 0.75
training = { epochs = 1, learning_rate = 0.05 }
"""


def _run(suite: Path, results: Path) -> None:
    import tests.tiny_network  # noqa: F401  (registers the network)

    run(lay_out(load_suite(str(suite)), None), RunOptions(Store(results)))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a run in a process that has torch imported already, so that what is killed is the run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.tiny_network", "coreml_prune_bench.bench.build.builder", "coreml_prune_bench.accuracy.evaluate"]
    )
    warm_up = context.Process(target=int)  # the first one waits for the imports
    warm_up.start()
    warm_up.join()
    suite = tmp_path_factory.mktemp("suite") / "tiny.toml"
    suite.write_text(_SUITE)

    def call(results: Path) -> multiprocessing.Process:
        process = context.Process(target=_run, args=(suite, results))
        process.start()
        return process

    return call


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """The results of a run that nothing happened to, and the seconds that it took."""
    results = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    start(results).join()
    assert len(_predictions(results)) == 3
    return results, time.monotonic() - started


def _predictions(results: Path) -> dict[str, Predictions | None]:
    return {record.key: record.predictions for record in read_records(results)}


@pytest.mark.parametrize("kills", [pytest.param(1, id="once"), pytest.param(50, id="50-times", marks=pytest.mark.slow)])
def test_killed_at_random_points_and_resumed_the_table_is_the_same(start, undisturbed, tmp_path, kills):
    """Two runs at once, of which one or both are killed; a third goes on from there."""
    expected, seconds = undisturbed
    draw = random.Random(kills)
    killed = rounds = 0
    while killed < kills:
        results = tmp_path / f"results{rounds}"
        rounds += 1
        pair = [start(results) for _ in range(2)]
        time.sleep(draw.uniform(0, seconds))
        for victim in pair[: draw.choice([1, 2])]:
            killed += victim.is_alive()
            victim.kill()
        for process in pair:
            process.join()
        resumed = start(results)
        resumed.join()
        assert resumed.exitcode == 0
        assert _predictions(results) == _predictions(expected)
        assert render(read_records(results)) == render(read_records(expected))


@pytest.mark.slow
def test_two_runs_at_once_agree_and_leave_nothing_unfinished(start, undisturbed, tmp_path):
    pair = [start(tmp_path / "results") for _ in range(2)]
    for process in pair:
        process.join()
    assert [process.exitcode for process in pair] == [0, 0]
    assert _predictions(tmp_path / "results") == _predictions(undisturbed[0])
    assert not list((tmp_path / "results").rglob("*.tmp"))


def test_a_run_that_fails_does_not_replace_what_another_has_measured(tmp_path):
    store = Store(tmp_path)
    measured, failed = accuracy_record([True]), failed_record()

    def written(record: Record) -> str:
        return store.write_record("name", record).status

    assert written(failed) == "failed"
    assert written(measured) == "measured"
    assert written(failed) == "measured"
    assert store.record("name") == measured
