"""Training-time pruning: coreai-opt's MagnitudePruner along a fine-tuning.

Definition: `coreai_opt.pruning.MagnitudePruner` and `PolynomialDecaySchedule` of coreai-opt 0.4.0.
"""

from typing import Any

import torch

from coreml_prune_bench.models.checkpoints import State
from coreml_prune_bench.models.errors import BenchError
from coreml_prune_bench.models.pruning.coreai_magnitude_pruner.config import CoreAIMagnitudePrunerConfig
from coreml_prune_bench.models.pruning.fine_tuning import train_along
from coreml_prune_bench.models.pruning.task import Pruned, PruningTask, Targets, layer_sparsities, scope_in_words
from coreml_prune_bench.models.training import total_steps


def prune(config: CoreAIMagnitudePrunerConfig, task: PruningTask) -> Pruned:
    """Fine-tune while the pruner raises the sparsity."""
    targets, scope, devices = fine_tune(config, task)
    return Pruned(config, task.model, task.image_size, targets, scope, devices)


def fine_tune(config: CoreAIMagnitudePrunerConfig, task: PruningTask) -> tuple[Targets, str, tuple[str, ...]]:
    """Prune the task's network in torch: the layers' targets, the scope in words, and the devices that did it.

    Raises BenchError where coreai-opt is not installed.
    """
    try:
        from coreai_opt.common import ExportBackend
        from coreai_opt.pruning import MagnitudePruner
    except ImportError as error:
        raise BenchError(
            f"{config.algorithm} needs coreai-opt, which no extra brings because with its torchao every import of "
            f"coremltools takes seconds longer: pip install 'coreai-opt==0.4.0' 'torchao<0.17' ({error})"
        ) from error
    data = task.training_data()
    targets = layer_sparsities(config, task.network, task.model)
    scope = scope_in_words(config, task.network, task.model)
    pruner = MagnitudePruner(task.model, _own_config(config, targets, total_steps(len(data), config.training)))

    def prepared() -> _ResumablePruner:
        pruner.prepare((torch.zeros(1, 3, task.image_size, task.image_size),))
        return _ResumablePruner(pruner)

    devices = train_along(config, task, data, prepared)
    pruner.finalize(backend=ExportBackend.Torch)
    return targets, scope, devices


def _own_config(config: CoreAIMagnitudePrunerConfig, targets: Targets, steps: int) -> Any:
    """These sparsities by layer, in so many training steps."""
    from coreai_opt.pruning import MagnitudePrunerConfig, ModuleMagnitudePrunerConfig, PruningSpec
    from coreai_opt.pruning.config import PolynomialDecaySchedule

    first, last = round(config.pruning_start * steps), round(config.pruning_share * steps)
    schedule = PolynomialDecaySchedule(
        begin_step=first,
        total_iters=max(1, last - first),
        power=config.power,
        initial_sparsity=config.initial_sparsity,
    )
    layers = {
        name: ModuleMagnitudePrunerConfig(
            op_state_spec={"weight": PruningSpec(target_sparsity=target)}, sparsity_schedule=schedule
        )
        for name, target in targets.items()
    }
    return MagnitudePrunerConfig(global_config=None, module_name_configs=layers)


class _ResumablePruner:
    """The pruner with what it keeps beside the masks and the steps, which are part of the network."""

    def __init__(self, pruner: Any) -> None:
        self._pruner = pruner

    def step(self) -> None:
        self._pruner.step()

    def state(self) -> State:
        return {"levels": [entry.impl._sparsity for entry in self._pruner._scheduled_modules]}

    def restore(self, state: State) -> None:
        for entry, level in zip(self._pruner._scheduled_modules, state["levels"], strict=True):
            entry.impl._sparsity, entry.impl._dirty = level, False
