"""One network in both package formats: the portable runtime on each, and Apple's runtime for the processor.

The same weights, the same uint8 images and as many threads; Apple's runtime takes as many as it likes, and one image at
a time. The ways take turns.

Never a timed test: `make benchmark` prints the ratios, nothing here asserts one.
"""

from pathlib import Path

import numpy as np
import pytest

from coreml_prune_bench.bench.formats.aimodel import AIMODEL
from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.runtimes import coreai, portable
from tests.benchmarks.test_speed import ROUNDS, SIZE, THREADS, seconds_of

pytest.importorskip("coreai")
"""No wheel for this machine."""

PREDICTIONS = 3
"""Of Apple's runtime, which takes seconds for each."""


@pytest.fixture(scope="module", params=["mobilenet_v2", "mobilenet_v3_small", "resnet50"])
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By suffix, of one network at 50 %."""
    network = get_network(request.param)
    model = untrained_model(network, 1000).eval()
    task = PruningTask(network, model, SIZE, None, 0, progress=lambda done, total: None)
    pruned = prune(PostTrainingConfig(sparsity=0.5), task)
    folder = tmp_path_factory.mktemp("packages")
    found = {suffix: folder / f"{network.name}{suffix}" for suffix in (".mlpackage", ".aimodel")}
    to_sparse_coreml(pruned).save(str(found[".mlpackage"]))
    AIMODEL.save_pruned(pruned, found[".aimodel"])
    return found


@pytest.mark.parametrize("batch", ROUNDS)
def test_images_a_second(benchmark, packages: dict[str, Path], batch: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)
    core_ml, core_ai = (portable.load(packages[suffix], threads=THREADS) for suffix in (".mlpackage", ".aimodel"))
    seconds: list[float] = []

    def run_core_ml() -> None:
        core_ml.predict_batch({"image": images})

    def run_core_ai() -> None:
        core_ai.predict_batch({"image": images})

    def take_turns() -> None:
        run_core_ml()  # brings its weights back into the CPU's caches
        seconds.append(seconds_of(run_core_ml))
        run_core_ai()

    benchmark.group = f"{packages['.aimodel'].name}, batch {batch}"
    benchmark.pedantic(run_core_ai, setup=take_turns, rounds=ROUNDS[batch], warmup_rounds=1)
    others = {"mlpackage": min(seconds)}
    if batch == 1:
        others["apple"] = in_apples_runtime(packages[".aimodel"], images)
    benchmark.extra_info.update(network=packages[".aimodel"].name, batch=batch, others=others)


def in_apples_runtime(package: Path, images: np.ndarray) -> float:
    """Seconds of its fastest prediction."""
    model = coreai.Model(package)
    return min(seconds_of(lambda: model.predict_batch({"image": images})) for _ in range(PREDICTIONS))
