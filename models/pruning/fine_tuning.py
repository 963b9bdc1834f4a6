"""Pruning along a fine-tuning, whoever's pruner it is."""

from collections.abc import Callable
from copy import deepcopy

from coreml_prune_bench.models.loading import LabelledImages
from coreml_prune_bench.models.pruning.config import TrainedConfig
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.training import Pruner, Teacher, train


def train_along(
    config: TrainedConfig, task: PruningTask, data: LabelledImages, prepared: Callable[[], Pruner]
) -> tuple[str, ...]:
    """Train the task's network along the pruner that `prepared` puts on it. Returns the devices, in words."""
    # Copied before the pruner changes the network.
    teacher = Teacher(deepcopy(task.model).eval(), config.distillation) if config.distillation is not None else None
    return train(
        task.model,
        data,
        config.training,
        order_seed=task.trial,
        session=task.session,
        pruner=prepared(),
        teacher=teacher,
        progress=task.progress,
    )
