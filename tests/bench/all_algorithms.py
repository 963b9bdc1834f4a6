"""Packages of the dense network and of every algorithm, one quantized and one palettized: python -m ... FOLDER."""

import sys
from pathlib import Path

from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.models.pruning.blockwise_reconstruction.config import ReconstructionConfig
from coreml_prune_bench.models.pruning.magnitude_pruner.config import MagnitudePrunerConfig
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from tests.models.tiny import SIZE, TRAINING, dense, pruned

CONFIGS = [
    PostTrainingConfig(sparsity=0.5, palettize_bits=4),
    SparseGPTConfig(sparsity=0.5, calibration_samples=16, weight_dtype="uint8"),
    ReconstructionConfig(sparsity=0.5, calibration_samples=16, held_back_samples=4, steps=2, views=1),
    MagnitudePrunerConfig(sparsity=0.75, training={**TRAINING, "epochs": 1}),
]


def save_all(folder: Path) -> None:
    folder.mkdir(parents=True)
    MLPACKAGE.save_dense(dense(), SIZE, folder / "dense.mlpackage")
    for config in CONFIGS:
        MLPACKAGE.save_pruned(pruned(config)[0], folder / f"{config.algorithm}.mlpackage")


if __name__ == "__main__":
    save_all(Path(sys.argv[1]))
