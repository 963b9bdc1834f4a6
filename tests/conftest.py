"""What tests of several rooms share: random numbers, packages, a finished run of a tiny suite, and the command line."""

import gc
import random
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import coreml_prune_bench.cli.app
from coreml_prune_bench.bench import contention
from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import Outcome, RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.core.cache_folder import CACHE_VARIABLE
from coreml_prune_bench.mlprogram.summary import PackageSummary, read_package
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.store import Store
from tests.damage import TwoLayers
from tests.models.own_files import BLOCK, NET, SUITE
from tests.models.tiny import SIZE, dense
from tests.packages import from_torch
from tests.tiny_network import TINY  # (its module registers the network)

TINY_SUITE = """
description = "a network that trains in a second"
models = ["tiny"]
weights = "none"
trials = 2

[data]
default = "digits"

[training]
epochs = 3

[[configs]]
algorithm = "post-training"
sparsity = [0.5, 0.75]

[[configs]]
algorithm = "sparse-gpt"
sparsity = 0.5
calibration_samples = 32
batchnorm_samples = 64

[[configs]]
algorithm = "magnitude-pruner"
sparsity = 0.75
training = { epochs = 1, learning_rate = 0.05 }
"""


def pytest_collection_finish() -> None:
    """Keeps what the imports made out of garbage collection: coremltools collects in every conversion (0.3 s with torch)."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def nobody_else_is_busy() -> Iterator[None]:
    """What a command says does not depend on what else the machine does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contention, "busy_processors", lambda: 0.0)
        yield


@pytest.fixture(autouse=True)
def own_seed(request: pytest.FixtureRequest) -> int:
    """Random numbers are the test's own, whichever tests run before it: all streams start from a hash of its name."""
    seed = zlib.crc32(request.node.name.encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets with how many threads torch computes in this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def draw(own_seed: int) -> np.random.Generator:
    """Random inputs for a test."""
    return np.random.default_rng(own_seed)


@pytest.fixture(scope="session")
def tiny_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "tiny.toml"
    path.write_text(TINY_SUITE)
    return path


@pytest.fixture(scope="session")
def tiny_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def tiny_run(tiny_suite: Path, tiny_results: Path) -> Outcome:
    """Every cell of the tiny suite, built and measured."""
    return run(lay_out(load_suite(str(tiny_suite)), None), RunOptions(Store(tiny_results)))


# --- the command line, and what it is given


@pytest.fixture
def run_bench(capsys, monkeypatch):
    """Runs the command line in this process: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["run_bench.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            coreml_prune_bench.cli.app.main()
        output, errors = capsys.readouterr()
        return ended.value.code or 0, output, errors

    return call


@pytest.fixture
def refused(run_bench):
    """Asserts exit code 2, nothing on standard output and one line of error, which it returns."""

    def call(*arguments: object) -> str:
        code, output, errors = run_bench(*arguments)
        assert (code, output) == (2, ""), errors
        (line,) = errors.splitlines()
        assert line.startswith("error: ")
        return line

    return call


@pytest.fixture
def images(tmp_path) -> Path:
    """An image folder: train/ and val/ with three classes of four 32x32 images each."""
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b", "c"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return tmp_path / "images"


@pytest.fixture(scope="session")
def package(tmp_path_factory) -> Path:
    """A dense tiny network for three classes and 32x32 images."""
    path = tmp_path_factory.mktemp("package") / "tiny.mlpackage"
    to_coreml(untrained_model(TINY, 3).eval(), 32).save(str(path))
    return path


@pytest.fixture(scope="session")
def baseline(tmp_path_factory) -> PackageSummary:
    """What is read of a dense tiny network whose weights are worth pruning: what pruned ones are checked against."""
    path = tmp_path_factory.mktemp("baseline") / "x.mlpackage"
    to_coreml(dense(), SIZE).save(str(path))
    return read_package(path)


@pytest.fixture(scope="session")
def intact(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return from_torch(tmp_path_factory.mktemp("intact") / "m.mlpackage", TwoLayers(), (1, 8))


@pytest.fixture
def copy(intact, tmp_path) -> Path:
    """A copy of the intact package, to damage."""
    return Path(shutil.copytree(intact, tmp_path / "m.mlpackage"))


@pytest.fixture
def own_files(tmp_path: Path) -> Path:
    """A folder with a user's own network, net.py, and a suite for it, mine.toml."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks.py").write_text(BLOCK)
    (tmp_path / "mine.toml").write_text(SUITE)
    return tmp_path
