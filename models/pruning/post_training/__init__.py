"""Data-free: the smallest weights go, after conversion, as Core ML Tools' `prune_weights` does it."""

from coreml_prune_bench.models.pruning.algorithm import Algorithm, register
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig

register(
    Algorithm(
        config=PostTrainingConfig,
        entry="coreml_prune_bench.models.pruning.post_training.prune:prune",
        order=10,
        coremltools_yaml="coreml_prune_bench.models.pruning.post_training.prune:coremltools_yaml",
        advised={},
    )
)
