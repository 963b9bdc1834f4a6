"""A build that was killed while it trained goes on where it was, and its package is what it would have been."""

import shutil
from pathlib import Path

import pytest
import torch

import coreml_prune_bench.bench.build.training
from coreml_prune_bench.bench.build.builder import Builder
from coreml_prune_bench.bench.cells import Cell, lay_out
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.bench.training_options import TrainingOptions
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.devices import CPU, describe
from coreml_prune_bench.records.store import Store


@pytest.fixture(scope="module")
def cells(tiny_run, tiny_suite) -> dict[str, Cell]:
    """The dense cell and one fine-tuned cell of the tiny suite, which `tiny_results` holds."""
    cells = lay_out(load_suite(str(tiny_suite)), None)
    return {"training": cells[0], "pruning": cells[-1]}


class Interrupted(BaseException):
    pass


def build(cell: Cell, results: Path, said: list[str], interrupt: tuple[str, int] | None = None):
    """The steps that were taken, and the package, unless it is interrupted after a step of that."""
    steps: list[int] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "training" or (what == "pruning" and cell.config):
            steps.append(done)
        if (what, done) == interrupt:
            raise Interrupted

    options = TrainingOptions(device="cpu", checkpoint_minutes=0, say=said.append)
    return steps, Builder(Store(results), progress, training=options).build(cell)


def weights_of(package: Path) -> bytes:
    (file,) = package.rglob("weight.bin")
    return file.read_bytes()


def without(results: Path, tmp_path: Path, *keys: str) -> Path:
    copy = Path(shutil.copytree(results, tmp_path / "results"))
    for key in keys:
        shutil.rmtree(copy / "artifacts" / key[:16])
    return copy


@pytest.mark.parametrize("what", ["training", "pruning"])
def test_killed_and_built_again_it_is_the_same_package(cells, tiny_results, tmp_path, what):
    cell, said = cells[what], []
    expected = weights_of(tiny_results / "artifacts" / cell.build_key[:16])
    keys = [cell.build_key, cell.subject.dense_key] if what == "training" else [cell.build_key]
    results = without(tiny_results, tmp_path, *keys)
    for at in (5, 13):
        with pytest.raises(Interrupted):
            build(cell, results, said, (what, at))
        key = cell.subject.dense_key if what == "training" else cell.build_key
        assert [path.name for path in results.glob("artifacts/.*.checkpoint*")] == [f".{key[:16]}.checkpoint"]
    steps, built = build(cell, results, said)
    assert steps[0] == 13  # step 12 was saved
    assert weights_of(built.path) == expected
    assert built.made.devices == (describe(CPU),)
    assert built.made.threads == torch.get_num_threads()
    assert not list(results.glob("artifacts/.*.checkpoint*"))
    assert said == []


@pytest.mark.slow
@pytest.mark.parametrize("what", ["training", "pruning"])
def test_a_package_says_with_how_many_threads_each_part_of_a_training_computed(
    cells, tiny_results, tmp_path, threads, what
):
    cell = cells[what]
    keys = [cell.build_key, cell.subject.dense_key] if what == "training" else [cell.build_key]
    results = without(tiny_results, tmp_path, *keys)
    threads(2)
    with pytest.raises(Interrupted):
        build(cell, results, [], (what, 5))
    threads(1)
    _, built = build(cell, results, [])
    assert set(built.made.devices) == {"cpu (2 threads)", "cpu (1 thread)"}
    assert built.made.threads == 1


def test_a_damaged_checkpoint_costs_the_time_and_says_so(cells, tiny_results, tmp_path):
    cell, said = cells["pruning"], []
    results = without(tiny_results, tmp_path, cell.build_key)
    with pytest.raises(Interrupted):
        build(cell, results, said, ("pruning", 9))
    (checkpoint,) = results.glob("artifacts/.*.checkpoint")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    steps, built = build(cell, results, said)
    assert steps[0] == 1
    assert weights_of(built.path) == weights_of(tiny_results / "artifacts" / cell.build_key[:16])
    assert said == [f"{checkpoint} is a damaged checkpoint: ignored, and the training starts again"]


def test_now_and_then_a_line_says_how_fast_it_is(cells, tiny_results, tmp_path, monkeypatch):
    monkeypatch.setattr(coreml_prune_bench.bench.build.training, "_PACE_INTERVAL_S", 0)
    said: list[str] = []
    cell = cells["pruning"]
    build(cell, without(tiny_results, tmp_path, cell.build_key), said)
    assert said[-1].startswith(f"{cell.name}: pruning: step 21 of 21, ")
    assert said[-1].endswith(" steps/s, 0:00:00 left")


def test_a_device_that_is_not_there_is_refused_before_anything_is_built(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(BenchError, match="--device cuda: there is no GPU number 0"):
        Builder(Store(tmp_path), lambda *_: None, training=TrainingOptions(device="cuda"))
    assert not list(tmp_path.iterdir())


def test_the_command_line_refuses_it_in_one_line(tiny_suite, tmp_path, refused):
    line = refused("run", "--suite", tiny_suite, "--results", tmp_path / "results", "--device", "gpu")
    assert line == "error: --device gpu: expected auto, cpu, cuda, cuda:N or mps"
