"""Blockwise reconstruction, ours: zeros, then each block fitted to the dense network's."""

from coreml_prune_bench.models.pruning.algorithm import Algorithm, register
from coreml_prune_bench.models.pruning.blockwise_reconstruction.config import ReconstructionConfig

register(
    Algorithm(
        config=ReconstructionConfig,
        entry="coreml_prune_bench.models.pruning.blockwise_reconstruction.prune:prune",
        order=30,
        coremltools_yaml="coreml_prune_bench.models.pruning.blockwise_reconstruction.prune:coremltools_yaml",
        advised={"allocation": "sensitivity"},
    )
)
