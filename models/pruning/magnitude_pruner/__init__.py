"""Training-time: Core ML Tools' MagnitudePruner along a fine-tuning."""

from coreml_prune_bench.models.config import Distillation
from coreml_prune_bench.models.pruning.algorithm import Algorithm, register
from coreml_prune_bench.models.pruning.magnitude_pruner.config import MagnitudePrunerConfig

register(
    Algorithm(
        config=MagnitudePrunerConfig,
        entry="coreml_prune_bench.models.pruning.magnitude_pruner.prune:prune",
        order=40,
        trains_along="coreml_prune_bench.models.pruning.magnitude_pruner.prune:fine_tune",
        coremltools_yaml="coreml_prune_bench.models.pruning.magnitude_pruner.prune:coremltools_yaml",
        advised={"allocation": "sensitivity", "distillation": Distillation()},
    )
)
