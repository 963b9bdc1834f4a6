"""Runs that share one results folder, and are killed: nothing is lost, and the table is that of an undisturbed run."""

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, build_all, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.records.accuracy import Record, read_records
from coreml_prune_bench.records.kept import clear
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


def _build_and_run(suite: Path, results: Path) -> None:
    """A run alone builds nothing of which it has the record."""
    import tests.tiny_network  # noqa: F401

    build_all(lay_out(load_suite(str(suite)), None), RunOptions(Store(results)))
    _run(suite, results)


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

    def call(results: Path, target: Callable[[Path, Path], None] = _run) -> multiprocessing.Process:
        process = context.Process(target=target, args=(suite, results))
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


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 50])
def test_killed_at_random_points_and_resumed_the_table_is_the_same(start, undisturbed, tmp_path, kills):
    """Two runs at once, of which one or both are killed, beside one who clears what can be cleared.

    What they left is damaged further, as a full disk or a user would; a third goes on from there.
    """
    expected, seconds = undisturbed
    draw = random.Random(kills)
    killed = rounds = 0
    while killed < kills:
        results = tmp_path / f"results{rounds}"
        rounds += 1
        pair = [start(results) for _ in range(2)]
        _clear_for(draw.uniform(0, seconds), results)
        for victim in pair[: draw.choice([1, 2])]:
            killed += victim.is_alive()
            victim.kill()
        for process in pair:
            process.join()
        damaged = _damage(results, draw)
        resumed = start(results, _build_and_run)
        _clear_for(0.1, results)
        resumed.join()
        assert resumed.exitcode == 0
        _assert_is(results, expected)
        assert len(list(results.glob("records/*.damaged"))) == damaged
        clear(["unfinished", "checkpoints"], results)
        assert _unfinished(results) == []
        _assert_is(results, expected)


@pytest.mark.slow
def test_six_runs_at_once_agree_and_leave_nothing_unfinished(start, undisturbed, tmp_path):
    runs = [start(tmp_path / "results") for _ in range(6)]
    for process in runs:
        process.join()
    assert [process.exitcode for process in runs] == [0] * 6
    _assert_is(tmp_path / "results", undisturbed[0])
    assert _unfinished(tmp_path / "results") == []


def _assert_is(results: Path, expected: Path) -> None:
    """The same predictions, the same table, and the same bytes of every artifact."""
    assert _predictions(results) == _predictions(expected)
    assert render(read_records(results)) == render(read_records(expected))
    assert _artifacts(results) == _artifacts(expected)


def _artifacts(results: Path) -> dict[str, str]:
    return {path.name: tree_hash(path) for path in (results / "artifacts").glob("[!.]*")}


def _unfinished(results: Path) -> list[Path]:
    return [path for pattern in ("*.tmp", "*.checkpoint") for path in results.rglob(pattern)]


def _clear_for(seconds: float, results: Path) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        clear(None, results)
        time.sleep(0.01)


def _damage(results: Path, draw: random.Random) -> int:
    """Leave what a run may find; how many records are no records any more."""
    folders = [results / "artifacts", results / "records"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".DS_Store").write_bytes(b"\0")
    (folders[0] / ".0123456789abcdef.tmp").mkdir()
    (folders[0] / ".0123456789abcdef.tmp" / "weight.bin").write_bytes(b"half")
    _old(folders[0] / ".0123456789abcdef.tmp")
    (folders[1] / ".half.1.tmp").write_text("{")
    _old(folders[1] / ".half.1.tmp")
    for package in draw.sample(weights := sorted(folders[0].glob("*/*/Data/*/weights/weight.bin")), len(weights) // 2):
        package.write_bytes(package.read_bytes()[:-1])
    records = draw.sample(found := sorted(folders[1].glob("*.json")), len(found) // 2)
    for record in records:
        record.write_bytes(record.read_bytes()[: draw.randrange(record.stat().st_size)])
    for record in set(found) - set(records):
        shutil.copy(record, record.with_name(f"copy of {record.name}"))
    return len(records)


def _old(path: Path) -> None:
    os.utime(path, (0, 0))


def test_a_run_that_fails_does_not_replace_what_another_has_measured(tmp_path):
    store = Store(tmp_path)
    measured, failed = accuracy_record([True]), failed_record()

    def written(record: Record) -> str:
        return store.write_record("name", record).status

    assert written(failed) == "failed"
    assert written(measured) == "measured"
    assert written(failed) == "measured"
    assert store.record("name") == measured
