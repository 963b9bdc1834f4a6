"""Training-time: the MagnitudePruner of coreai-opt, Apple's compressor for Core AI, along a fine-tuning."""

from coreml_prune_bench.models.pruning.algorithm import Algorithm, register
from coreml_prune_bench.models.pruning.coreai_magnitude_pruner.config import CoreAIMagnitudePrunerConfig

register(
    Algorithm(
        config=CoreAIMagnitudePrunerConfig,
        entry="coreml_prune_bench.models.pruning.coreai_magnitude_pruner.prune:prune",
        order=50,
        trains_along="coreml_prune_bench.models.pruning.coreai_magnitude_pruner.prune:fine_tune",
    )
)
