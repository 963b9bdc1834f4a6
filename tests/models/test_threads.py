"""What docs/training.md says is the same to the bit whatever the number of torch's threads is so."""

from copy import deepcopy
from pathlib import Path

import pytest

import coreml_prune_bench.models.networks  # noqa: F401
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import untrained_model


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [None, 0.75])
def test_conversion_and_post_training_pruning_give_the_same_bytes(
    threads, tmp_path: Path, sparsity: float | None
) -> None:
    network = get_network("mobilenet_v3_small")
    model = untrained_model(network, 10).eval()
    written = []
    for count in (1, 2):
        threads(count)
        path, copy = tmp_path / f"{count}.mlpackage", deepcopy(model)
        task = PruningTask(network, copy, 32, None, 0, progress=lambda done, total: None)
        package = (
            to_coreml(copy, 32)
            if sparsity is None
            else to_sparse_coreml(prune(PostTrainingConfig(sparsity=sparsity), task))
        )
        package.save(str(path))
        (weights,) = path.rglob("weight.bin")
        written.append(weights.read_bytes())
    assert written[0] == written[1]
