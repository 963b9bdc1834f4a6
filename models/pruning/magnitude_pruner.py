"""Training-time pruning: Core ML Tools' MagnitudePruner along a fine-tuning (Zhu and Gupta 2017)."""

import re
from typing import Any

import numpy as np
from coremltools.optimize.torch.pruning import MagnitudePruner, PolynomialDecayScheduler
from coremltools.optimize.torch.pruning import MagnitudePrunerConfig as OwnConfig
from torch import nn

from harness.errors import BenchError
from models.config import MagnitudePrunerConfig
from models.layers import layers_in_scope, prunable_layers
from models.pruning.job import Pruned, PruningJob, Targets, converted, read_own_config, scope_of_own_config
from models.training import total_steps, train


def prune(config: MagnitudePrunerConfig, job: PruningJob) -> Pruned:
    """Fine-tune while the pruner raises the sparsity, then convert."""
    data = job.training_data()
    steps = total_steps(len(data), config.training)
    if config.coremltools is not None:
        own_config = read_own_config(config, OwnConfig.from_dict)
        targets = _targets(own_config, job.model, steps)
        scope = scope_of_own_config(targets)
    else:
        own_config = _pruner_config(config, job, steps)
        targets = _targets(own_config, job.model, steps)
        scope = job.scope(config).describe()
    pruner = MagnitudePruner(job.model, own_config)
    pruner.prepare(inplace=True)
    train(job.model, data, config.training, order_seed=job.trial, after_step=pruner.step, progress=job.progress)
    pruner.finalize(inplace=True)
    return converted(job, targets, scope)


def _pruner_config(config: MagnitudePrunerConfig, job: PruningJob, steps: int) -> OwnConfig:
    last = max(1, round(config.pruning_share * steps))
    # From 1: the pruner counts a step before it compares, so an update at step 0 would never come.
    update_steps = np.unique(np.linspace(1, last, min(config.updates, last)).round().astype(int))
    layer_config = {
        "scheduler": {"update_steps": update_steps.tolist()},
        "initial_sparsity": config.initial_sparsity,
        "target_sparsity": config.sparsity,
    }
    layers = layers_in_scope(job.model, job.scope(config))
    names: dict[str, Any] = {re.escape(name): layer_config for name in layers}
    return OwnConfig.from_dict({"module_name_configs": names})


def _targets(config: OwnConfig, model: nn.Module, steps: int) -> Targets:
    """The layers that are pruned and their targets. Raises BenchError if training ends before a schedule does."""
    targets: Targets = {}
    for name, layer in prunable_layers(model).items():
        layer_config = config.get_module_config(name, layer)
        if layer_config is None:
            continue
        scheduler = layer_config.scheduler
        if isinstance(scheduler, PolynomialDecayScheduler) and int(scheduler.update_steps[-1]) > steps:
            raise BenchError(
                f"MagnitudePruner's schedule for {name} ends at step {int(scheduler.update_steps[-1])}, "
                f"but training has {steps} steps; raise epochs or shorten update_steps"
            )
        ratio = layer_config.n_m_ratio
        targets[name] = ratio[0] / ratio[1] if ratio else layer_config.target_sparsity
    return targets
