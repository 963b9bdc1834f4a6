"""The pruning algorithms, a file each: a function that prunes one network with one typed config."""

from typing import assert_never

from coreml_prune_bench.models.config import (
    AnyPruningConfig,
    MagnitudePrunerConfig,
    PostTrainingConfig,
    ReconstructionConfig,
    SparseGPTConfig,
)
from coreml_prune_bench.models.conversion import zero_what_float16_loses
from coreml_prune_bench.models.pruning import (
    magnitude_pruner,
    post_training,
    reconstruction,
    sparse_gpt,
)
from coreml_prune_bench.models.pruning.task import Pruned, PruningJob

__all__ = ["Pruned", "PruningJob", "prune"]


def prune(config: AnyPruningConfig, job: PruningJob) -> Pruned:
    """Prune the job's network as `config` says and convert it. Raises BenchError for a config that cannot be used."""
    zero_what_float16_loses(job.model, job.image_size)
    match config:
        case PostTrainingConfig():
            return post_training.prune(config, job)
        case SparseGPTConfig():
            return sparse_gpt.prune(config, job)
        case ReconstructionConfig():
            return reconstruction.prune(config, job)
        case MagnitudePrunerConfig():
            return magnitude_pruner.prune(config, job)
        case _:
            assert_never(config)
