"""Training-time pruning: Core ML Tools' MagnitudePruner along a fine-tuning (Zhu and Gupta 2017)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from coremltools.optimize.torch.pruning import MagnitudePruner, PolynomialDecayScheduler
from coremltools.optimize.torch.pruning import MagnitudePrunerConfig as OwnConfig
from torch import Tensor, nn

from coreml_prune_bench.models.checkpoints import State
from coreml_prune_bench.models.errors import BenchError
from coreml_prune_bench.models.layers import prunable_layers
from coreml_prune_bench.models.pattern import Pattern
from coreml_prune_bench.models.pruning.fine_tuning import train_along
from coreml_prune_bench.models.pruning.magnitude_pruner.config import MagnitudePrunerConfig
from coreml_prune_bench.models.pruning.task import (
    Pruned,
    PruningTask,
    Targets,
    layer_sparsities,
    patterns_of,
    read_own_config,
    scope_in_words,
    scope_of_own_config,
)
from coreml_prune_bench.models.training import total_steps


def prune(config: MagnitudePrunerConfig, task: PruningTask) -> Pruned:
    """Fine-tune while the pruner raises the sparsity."""
    targets, scope, devices = fine_tune(config, task)
    if config.coremltools is not None:
        patterns = _own_patterns(read_own_config(config, OwnConfig.from_dict), task.model)
    else:
        patterns = patterns_of(config, targets)
    return Pruned(config, task.model, task.image_size, targets, scope, devices, patterns)


def fine_tune(config: MagnitudePrunerConfig, task: PruningTask) -> tuple[Targets, str, tuple[str, ...]]:
    """Prune the task's network in torch: the layers' targets, the scope in words, and the devices that did it."""
    data = task.training_data()
    steps = total_steps(len(data), config.training)
    if config.coremltools is not None:
        own_config = read_own_config(config, OwnConfig.from_dict)
        targets = _targets(own_config, task.model, steps)
        scope = scope_of_own_config(targets)
    else:
        targets = layer_sparsities(config, task.network, task.model)
        own_config = OwnConfig.from_dict(as_coremltools(config, targets, steps))
        scope = scope_in_words(config, task.network, task.model)
    pruner = MagnitudePruner(task.model, own_config)

    def prepared() -> _ResumablePruner:
        pruner.prepare(inplace=True)
        return _ResumablePruner(pruner)

    with _sharing_what_is_masked(task.model):
        devices = train_along(config, task, data, prepared)
        pruner.finalize(inplace=True)
    return targets, scope, devices


@contextmanager
def _sharing_what_is_masked(model: nn.Module) -> Iterator[None]:
    """Inside, whatever shares its weight with a layer that is pruned uses it as it is masked, not as it is kept."""
    layers = prunable_layers(model)
    owners = {id(layer.weight): layer for layer in layers.values()}
    others = [
        (module, type(module), name, owners[id(parameter)])
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if id(parameter) in owners and module is not owners[id(parameter)]
    ]
    for module, kind, name, owner in others:
        del module._parameters[name]
        module.__class__ = type(kind.__name__, (type(module),), {name: property(partial(_masked, owner))})
    yield
    for module, kind, name, owner in others:
        module.__class__ = kind
        module.register_parameter(name, owner.get_parameter("weight"))


def _masked(owner: nn.Module, _: nn.Module) -> Tensor:
    if "weight_orig" not in owner._parameters:
        return owner.get_parameter("weight")
    return owner.get_parameter("weight_orig") * owner.get_buffer("weight_mask")


class _ResumablePruner:
    """Core ML Tools' pruner with what it keeps beside the masks, which are part of the network."""

    def __init__(self, pruner: MagnitudePruner) -> None:
        self._pruner = pruner

    def step(self) -> None:
        self._pruner.step()

    def state(self) -> State:
        levels = {name: info.sparsity_level for name, info in self._pruner._pruner_info.items()}
        return {"steps": self._pruner._step_count, "levels": levels}

    def restore(self, state: State) -> None:
        self._pruner._step_count = state["steps"]
        for name, info in self._pruner._pruner_info.items():
            # The network's own copy of the level is rounded to Float32.
            info.sparsity_level = info.module.pruning_method.amount = state["levels"][name]


def as_coremltools(config: MagnitudePrunerConfig, targets: Targets, steps: int) -> dict[str, Any]:
    """What Core ML Tools' MagnitudePrunerConfig reads: these sparsities by layer, in so many training steps."""
    # From 1: the pruner counts a step before it compares, so an update at step 0 would never come.
    first = max(1, round(config.pruning_start * steps))
    last = max(1, round(config.pruning_share * steps))
    update_steps = np.unique(np.linspace(first, last, min(config.updates, last - first + 1)).round().astype(int))
    same: dict[str, Any] = {
        "scheduler": {"update_steps": update_steps.tolist(), "power": config.power},
        "initial_sparsity": config.initial_sparsity,
        "granularity": config.granularity,
    }
    if config.block_size is not None:
        same["block_size"] = config.block_size
    if config.n_m_ratio is not None:
        same |= {"n_m_ratio": config.n_m_ratio, "dim": 1 if config.dim is None else config.dim}
    return {"module_name_configs": {re.escape(name): {**same, "target_sparsity": own} for name, own in targets.items()}}


def coremltools_yaml(
    config: MagnitudePrunerConfig, targets: Targets, training_images: int
) -> tuple[str, dict[str, Any]]:
    """What to know of the file, and what is in it: a schedule depends on the number of training images."""
    steps = total_steps(training_images, config.training)
    note = f"Read by coremltools.optimize.torch.pruning.MagnitudePrunerConfig.from_yaml, for {steps} steps."
    return note, as_coremltools(config, targets, steps)


def _own_patterns(config: OwnConfig, model: nn.Module) -> dict[str, Pattern]:
    """How the zeros of each layer have to stand that a Core ML Tools config prunes in a structure."""
    patterns = {}
    for name, layer in prunable_layers(model).items():
        layer_config = config.get_module_config(name, layer)
        if layer_config is None:
            continue
        if layer_config.n_m_ratio:
            n, m = layer_config.n_m_ratio
            patterns[name] = Pattern(along="output" if layer_config.dim == 0 else "input", size=m, zeros=n)
        elif layer_config.granularity != "per_scalar" and layer.weight.ndim > 2:
            along = "channel" if layer_config.granularity == "per_channel" else "kernel"
            patterns[name] = Pattern(along=along)
        elif layer_config.block_size > 1:
            patterns[name] = Pattern(along="output", size=layer_config.block_size)
    return patterns


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
