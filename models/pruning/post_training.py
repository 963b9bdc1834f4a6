"""Data-free post-training pruning: `coremltools.optimize.coreml.prune_weights` on the converted dense model."""

import math
from typing import Any, TypeAlias

import coremltools.optimize.coreml as cto
import torch
from torch import nn

from models.config import PostTrainingConfig
from models.conversion import fold_batchnorm, prune_weights, to_coreml, weight_name
from models.layers import layers_in_scope, prunable_layers
from models.pruning.job import Pruned, PruningJob, Targets, read_own_config, scope_of_own_config

_OpConfig: TypeAlias = cto.OpMagnitudePrunerConfig | cto.OpThresholdPrunerConfig


def prune(config: PostTrainingConfig, job: PruningJob) -> Pruned:
    """Convert the dense network and prune the program's weights, without data."""
    model = fold_batchnorm(job.model)
    if config.coremltools is not None:
        own_config = read_own_config(config, _read)
        targets = _targets(own_config, model)
        scope = scope_of_own_config(targets)
    else:
        layers = layers_in_scope(model, job.scope(config))
        own_config = cto.OptimizationConfig(op_name_configs={weight_name(name): _op_config(config) for name in layers})
        targets = dict.fromkeys(layers, config.sparsity)
        scope = job.scope(config).describe()
        if config.sparsity is not None:
            for layer in layers.values():
                break_ties(layer.weight, config.sparsity)
    return Pruned(prune_weights(to_coreml(model, job.image_size), own_config), targets, scope)


@torch.no_grad()
def break_ties(weight: torch.Tensor, sparsity: float) -> None:
    """Zero, in place, the ceil(sparsity * elements) smallest weights as Float16 sees them; of equals, the first.

    `prune_weights` zeroes every weight that equals the percentile. In weights that were 8-bit once many do: layers of a
    MobileNetV2 came out 2.9 points sparser than asked. With as many zeros as asked for, the percentile lies between
    zero and the next magnitude, and `prune_weights` zeroes these and no others. Without ties it would choose the same.
    """
    smallest = weight.half().abs().flatten().argsort(stable=True)[: math.ceil(sparsity * weight.numel())]
    weight.view(-1)[smallest] = 0


def _op_config(config: PostTrainingConfig) -> _OpConfig:
    # weight_threshold=0: the scope alone decides which layers stay dense.
    if config.threshold is not None:
        return cto.OpThresholdPrunerConfig(threshold=config.threshold, weight_threshold=0)
    return cto.OpMagnitudePrunerConfig(target_sparsity=config.sparsity, weight_threshold=0)


def _read(values: dict[str, Any]) -> cto.OptimizationConfig:
    config = cto.OptimizationConfig.from_dict(values)
    every = [config.global_config, *config.op_type_configs.values(), *config.op_name_configs.values()]
    for op_config in every:
        if op_config is not None and not isinstance(op_config, _OpConfig):
            raise TypeError(f"{type(op_config).__name__} does not prune")
    return config


def _targets(config: cto.OptimizationConfig, model: nn.Module) -> Targets:
    """What a Core ML Tools config asks of each layer: by name, else by operation type, else globally."""
    targets: Targets = {}
    for name, layer in prunable_layers(model).items():
        by_type = config.op_type_configs.get("conv" if isinstance(layer, nn.Conv2d) else "linear", config.global_config)
        op_config = config.op_name_configs.get(weight_name(name), by_type)
        if op_config is None or layer.weight.numel() <= (op_config.weight_threshold or 0):
            continue
        if isinstance(op_config, cto.OpThresholdPrunerConfig):
            targets[name] = None
        elif op_config.n_m_ratio is not None:
            targets[name] = op_config.n_m_ratio[0] / op_config.n_m_ratio[1]
        else:
            targets[name] = op_config.target_sparsity
    return targets
