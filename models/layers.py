"""The layers of a network that can be pruned."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from coreml_prune_bench.models.config import Scope

PrunableLayer = nn.Conv2d | nn.Linear

_STAYS_DENSE = "stays_dense"


def prunable_layers(model: nn.Module) -> dict[str, PrunableLayer]:
    """Every Conv2d and Linear of `model` by its dotted name, but those that `leave_dense` named.

    Of layers that share one weight, the first.
    """
    layers: dict[str, Any] = {names[0]: model.get_submodule(names[0]) for names in names_by_weight(model)}
    return {name: layer for name, layer in layers.items() if not getattr(layer, _STAYS_DENSE, False)}


def names_by_weight(model: nn.Module) -> list[list[str]]:
    """The names of all convolutions and linear layers, those together that share one weight."""
    weights: list[Tensor] = []  # kept: one that is computed when it is asked for may get the id of another
    names: dict[int, list[str]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, PrunableLayer):
            weights.append(layer.weight)
            names.setdefault(id(weights[-1]), []).append(name)
    return list(names.values())


def leave_dense(model: nn.Module, names: Iterable[str]) -> None:
    """Have no algorithm prune these layers of `model`, nor of its copies."""
    for name in names:
        setattr(model.get_submodule(name), _STAYS_DENSE, True)


def left_dense(model: nn.Module) -> list[str]:
    """The layers that `leave_dense` named."""
    return [name for name, module in model.named_modules() if getattr(module, _STAYS_DENSE, False)]


def layers_in_scope(model: nn.Module, scope: Scope) -> dict[str, PrunableLayer]:
    """The layers of `model` that `scope` chooses, by their dotted names.

    What is excluded under one of the names that share a weight is excluded under all.
    """
    sharing = {names[0]: names for names in names_by_weight(model)}
    return {name: layer for name, layer in prunable_layers(model).items() if _chooses(scope, sharing[name], layer)}


def matching(model: nn.Module, patterns: Iterable[str]) -> set[str]:
    """Those of the patterns, with * and ? as wildcards, that match the name of a prunable layer of `model`."""
    prunable = prunable_layers(model)
    names = [name for sharing in names_by_weight(model) if sharing[0] in prunable for name in sharing]
    return {pattern for pattern in patterns if any(fnmatchcase(name, pattern) for name in names)}


def is_depthwise(layer: nn.Module) -> bool:
    """Whether `layer` is a convolution with groups (depthwise in the networks here)."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def stage_names(view: nn.Sequential) -> list[str]:
    """Names of the consecutive stages of a sequential view.

    SparseGPT walks them one by one, so that each stage is pruned with inputs that have seen the pruned stages before.
    """
    return [name for name, _ in view.named_children()]


def _chooses(scope: Scope, names: list[str], layer: PrunableLayer) -> bool:
    if is_depthwise(layer) and not scope.depthwise:
        return False
    if layer.weight.numel() <= scope.min_elements:
        return False
    return not any(fnmatchcase(name, pattern) for pattern in scope.exclude for name in names)
