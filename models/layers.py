"""The layers of a network that can be pruned."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from coreml_prune_bench.models.config import Scope

PrunableLayer = nn.Conv2d | nn.Linear

_STAYS_DENSE = "stays_dense"


def prunable_layers(model: nn.Module) -> dict[str, PrunableLayer]:
    """Every Conv2d and Linear of `model` by its dotted name, but those that `leave_dense` named."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, PrunableLayer)}
    return {name: layer for name, layer in layers.items() if not getattr(layer, _STAYS_DENSE, False)}


def leave_dense(model: nn.Module, names: Iterable[str]) -> None:
    """Have no algorithm prune these layers of `model`, nor of its copies."""
    for name in names:
        setattr(model.get_submodule(name), _STAYS_DENSE, True)


def left_dense(model: nn.Module) -> list[str]:
    """The layers that `leave_dense` named."""
    return [name for name, module in model.named_modules() if getattr(module, _STAYS_DENSE, False)]


def layers_in_scope(model: nn.Module, scope: Scope) -> dict[str, PrunableLayer]:
    """The layers of `model` that `scope` chooses, by their dotted names."""
    return {name: layer for name, layer in prunable_layers(model).items() if _chooses(scope, name, layer)}


def matching(model: nn.Module, patterns: Iterable[str]) -> set[str]:
    """Those of the patterns, with * and ? as wildcards, that match the name of a prunable layer of `model`."""
    names = list(prunable_layers(model))
    return {pattern for pattern in patterns if any(fnmatchcase(name, pattern) for name in names)}


def is_depthwise(layer: nn.Module) -> bool:
    """Whether `layer` is a convolution with groups (depthwise in the networks here)."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def stage_names(view: nn.Sequential) -> list[str]:
    """Names of the consecutive stages of a sequential view.

    SparseGPT walks them one by one, so that each stage is pruned with inputs that have seen the pruned stages before.
    """
    return [name for name, _ in view.named_children()]


def _chooses(scope: Scope, name: str, layer: PrunableLayer) -> bool:
    if is_depthwise(layer) and not scope.depthwise:
        return False
    if layer.weight.numel() <= scope.min_elements:
        return False
    return not any(fnmatchcase(name, pattern) for pattern in scope.exclude)
