"""What several test files share: the sample data, and a finished run of a tiny suite."""

from pathlib import Path

import pytest

import tests.tiny_network  # noqa: F401  (registers the network)
from harness.cells import lay_out
from harness.progress import Reporter
from harness.run import Outcome, run
from harness.store import Store
from harness.suite import load_suite

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_sample = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason="the sample images and weights are not beside the project"
)

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
    return run(lay_out(load_suite(str(tiny_suite)), None), Store(tiny_results), Reporter())
