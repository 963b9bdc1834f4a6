"""The layers of a network that can be pruned, and the stages that SparseGPT walks."""

from collections import OrderedDict
from fnmatch import fnmatchcase

from torch import nn

from models.config import Scope

PrunableLayer = nn.Conv2d | nn.Linear


def prunable_layers(model: nn.Module) -> dict[str, PrunableLayer]:
    """Every Conv2d and Linear of `model` by its dotted name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, PrunableLayer)}


def layers_in_scope(model: nn.Module, scope: Scope) -> dict[str, PrunableLayer]:
    """The layers of `model` that `scope` chooses, by their dotted names."""
    return {name: layer for name, layer in prunable_layers(model).items() if _chooses(scope, name, layer)}


def is_depthwise(layer: nn.Module) -> bool:
    """Whether `layer` is a convolution with groups (depthwise in the networks here)."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def sequential(*stages: tuple[str, nn.Module]) -> nn.Sequential:
    """An nn.Sequential of named modules; the modules are shared, not copied."""
    return nn.Sequential(OrderedDict(stages))


def stage_names(view: nn.Sequential) -> list[str]:
    """Names of the consecutive stages of a sequential view, one level below its nn.Sequential children.

    SparseGPT walks them one by one, so that each stage is pruned with inputs that have seen the pruned stages before.
    """
    names = []
    for name, module in view.named_children():
        if isinstance(module, nn.Sequential):
            names += [f"{name}.{child}" for child, _ in module.named_children()]
        else:
            names.append(name)
    return names


def _chooses(scope: Scope, name: str, layer: PrunableLayer) -> bool:
    if is_depthwise(layer) and not scope.depthwise:
        return False
    if layer.weight.numel() <= scope.min_elements:
        return False
    return not any(fnmatchcase(name, pattern) for pattern in scope.exclude)
