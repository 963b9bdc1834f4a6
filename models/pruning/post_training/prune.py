"""Data-free post-training pruning: `coremltools.optimize.coreml.prune_weights` on the converted dense model."""

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import coremltools.optimize.coreml as cto
import torch
from torch import nn

from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.conversion import prune_weights, stored_parameters, weight_parameters
from coreml_prune_bench.models.errors import CellFailedError
from coreml_prune_bench.models.layers import prunable_layers
from coreml_prune_bench.models.pattern import Pattern, smallest
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
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
from coreml_prune_bench.models.weight_names import WEIGHT, weight_name

if TYPE_CHECKING:
    import coremltools as ct

_OpConfig: TypeAlias = cto.OpMagnitudePrunerConfig | cto.OpThresholdPrunerConfig


def prune(config: PostTrainingConfig, task: PruningTask) -> Pruned:
    """Choose the weights that go, without data. Single weights go when the program is converted."""
    model = fold_batchnorm(task.model, task.image_size)
    if config.coremltools is not None:
        own_config = read_own_config(config, _read)
        targets, patterns = _promises(own_config, model)
        scope, in_program = scope_of_own_config(targets), partial(prune_weights, config=own_config)
        return Pruned(config, model, task.image_size, targets, scope, patterns=patterns, prune_program=in_program)
    targets = layer_sparsities(config, task.network, model)
    scope = scope_in_words(config, task.network, model)
    layers = prunable_layers(model)
    for name, sparsity in targets.items():
        weight = layers[name].weight
        if config.pattern is not None:
            zero_smallest(weight, config.pattern, sparsity)
        elif sparsity is not None:
            break_ties(weight, sparsity)
    if config.pattern is not None:
        return Pruned(config, model, task.image_size, targets, scope, patterns=patterns_of(config, targets))
    in_program = partial(_prune_program, config=config, targets=targets)
    return Pruned(config, model, task.image_size, targets, scope, prune_program=in_program)


@torch.no_grad()
def break_ties(weight: torch.Tensor, sparsity: float) -> None:
    """Zero, in place, the ceil(sparsity * elements) smallest weights as Float16 sees them; of equals, the first.

    `prune_weights` zeroes every weight that equals the percentile. In weights that were 8-bit once many do: layers of a
    MobileNetV2 came out 2.9 points sparser than asked. With as many zeros as asked for, the percentile lies between
    zero and the next magnitude, and `prune_weights` zeroes these and no others. Without ties it would choose the same.
    """
    weight.view(-1)[by_magnitude(weight)[: zeros_of(weight, sparsity)]] = 0


def by_magnitude(weight: torch.Tensor) -> torch.Tensor:
    """The places in the flattened weight, those of the smallest weights, as Float16 sees them, first."""
    return weight.half().abs().flatten().argsort(stable=True)


def zeros_of(weight: torch.Tensor, sparsity: float) -> int:
    """How many weights `sparsity` is."""
    return math.ceil(sparsity * weight.numel())


@torch.no_grad()
def zero_smallest(weight: torch.Tensor, pattern: Pattern, sparsity: float | None) -> None:
    """Zero, in place, what Core ML Tools' rule for `pattern` chooses among the weights as Float16 sees them.

    `prune_weights` has the rule too, but computes the norms of blocks in Float16, where the squares of weights below
    2.4e-4 are zero and many others equal, and zeroes every block that ties with the percentile.
    """
    places = smallest(weight.half().numpy(), pattern, sparsity)
    weight.view(-1)[torch.from_numpy(places)] = 0


def as_coremltools(config: PostTrainingConfig, targets: Targets, parameters: Mapping[str, str] = {}) -> dict[str, Any]:
    """What Core ML Tools' OptimizationConfig reads: these sparsities by layer, or the config's threshold.

    parameters: under what a layer's weight was converted, where that is not "weight".
    """
    # weight_threshold=0: the scope alone decides which layers stay dense.
    same: dict[str, Any] = {"weight_threshold": 0}
    if config.block_size is not None:
        same |= {"block_size": config.block_size, "dim": config.dim or 0}
    if config.n_m_ratio is not None:
        same |= {"n_m_ratio": config.n_m_ratio, "dim": 1 if config.dim is None else config.dim}
    elif config.threshold is not None:
        same["threshold"] = config.threshold
    alike = config.threshold is not None or config.n_m_ratio is not None
    return {
        "config_type": "OpMagnitudePrunerConfig" if config.threshold is None else "OpThresholdPrunerConfig",
        "op_name_configs": {
            weight_name(name, parameters.get(name, WEIGHT)): dict(same) if alike else {**same, "target_sparsity": own}
            for name, own in targets.items()
        },
    }


def coremltools_yaml(config: PostTrainingConfig, targets: Targets, training_images: int) -> tuple[str, dict[str, Any]]:
    """What to know of the file, and what is in it."""
    note = "Read by coremltools.optimize.coreml.OptimizationConfig.from_yaml, for one with BatchNorm folded."
    return note, as_coremltools(config, targets)


def _prune_program(program: "ct.models.MLModel", config: PostTrainingConfig, targets: Targets) -> "ct.models.MLModel":
    own = as_coremltools(config, targets, stored_parameters(program, targets))
    return prune_weights(program, cto.OptimizationConfig.from_dict(own))


def _read(values: dict[str, Any]) -> cto.OptimizationConfig:
    config = cto.OptimizationConfig.from_dict(values)
    every = [config.global_config, *config.op_type_configs.values(), *config.op_name_configs.values()]
    for op_config in every:
        if op_config is not None and not isinstance(op_config, _OpConfig):
            raise TypeError(f"{type(op_config).__name__} does not prune")
    return config


def _promises(config: cto.OptimizationConfig, model: nn.Module) -> tuple[Targets, dict[str, Pattern]]:
    """What a Core ML Tools config asks of each layer: by name, else by operation type, else globally.

    Raises CellFailedError where it names a weight as several tensors would have been called.
    """
    targets: Targets = {}
    patterns: dict[str, Pattern] = {}
    parameters = weight_parameters(model)
    for name, layer in prunable_layers(model).items():
        if parameters[name] != WEIGHT and weight_name(name) in config.op_name_configs:
            own = weight_name(name, parameters[name])
            raise CellFailedError(f"op_name_configs: not only {name} would be {weight_name(name)}; its weight is {own}")
        by_type = config.op_type_configs.get("conv" if isinstance(layer, nn.Conv2d) else "linear", config.global_config)
        op_config = config.op_name_configs.get(weight_name(name, parameters[name]), by_type)
        if op_config is None or layer.weight.numel() <= (op_config.weight_threshold or 0):
            continue
        if isinstance(op_config, cto.OpThresholdPrunerConfig):
            targets[name] = None
            continue
        along = "input" if op_config.dim == 1 else "output"
        if op_config.n_m_ratio is not None:
            n, m = op_config.n_m_ratio
            targets[name], patterns[name] = n / m, Pattern(along=along, size=m, zeros=n)
        else:
            targets[name] = op_config.target_sparsity
            if op_config.block_size is not None:
                patterns[name] = Pattern(along=along, size=op_config.block_size)
    return targets, patterns
