"""A pruning algorithm in one file: what docs/extending.md says that it takes, and all that it takes."""

from typing import ClassVar, Literal

import torch

from coreml_prune_bench.models.layers import prunable_layers
from coreml_prune_bench.models.pruning.algorithm import Algorithm
from coreml_prune_bench.models.pruning.config import PruningConfig, Takes
from coreml_prune_bench.models.pruning.task import Pruned, PruningTask, layer_sparsities, scope_in_words


class RandomConfig(PruningConfig):
    """Zeros anywhere, which is what every algorithm has to beat."""

    title: ClassVar[str] = "Random pruning"
    takes: ClassVar[frozenset[Takes]] = frozenset()
    has_trials: ClassVar[bool] = True

    algorithm: Literal["random"] = "random"


def prune(config: RandomConfig, task: PruningTask) -> Pruned:
    targets = layer_sparsities(config, task.network, task.model)
    layers = prunable_layers(task.model)
    generator = torch.Generator().manual_seed(task.trial)
    for name, sparsity in targets.items():
        weight = layers[name].weight.data
        order = torch.randperm(weight.numel(), generator=generator)
        weight.view(-1)[order[: round(sparsity * weight.numel())]] = 0
    scope = scope_in_words(config, task.network, task.model)
    return Pruned(config, task.model, task.image_size, targets, scope)


RANDOM = Algorithm(config=RandomConfig, entry=f"{__name__}:prune", order=5, advised={})
