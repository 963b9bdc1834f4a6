"""What a network does with an image: which layers it calls, and which BatchNorm takes a convolution's output alone.

Seen while it runs, so that it holds for networks of any code: nothing is traced, and no name is guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from coreml_prune_bench.models.plain import spelt_out


@dataclass(frozen=True)
class Observation:
    """output: what the network returned. calls: how often each convolution, linear layer and BatchNorm was called.

    foldable: (convolution, BatchNorm) by their dotted names, each called once, where nothing else sees what is between.
    """

    output: Any
    calls: Counter[str]
    foldable: list[tuple[str, str]]


@torch.no_grad()
def observe(model: nn.Module, image_size: int) -> Observation:
    """Run `model`, which is on the CPU and in eval mode, on one black image [1, 3, image_size, image_size]."""
    watched = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d)}
    calls: Counter[str] = Counter()
    made_by: dict[int, tuple[str, Tensor]] = {}  # tensors are kept, so that no other gets their id
    pairs: list[tuple[str, str, int]] = []
    uses = _Uses()

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] += 1
            taken = id(inputs[0]) if inputs else None
            if isinstance(module, nn.BatchNorm2d) and taken in made_by:
                pairs.append((made_by[taken][0], name, taken))
            if isinstance(module, nn.Conv2d):
                made_by[id(output)] = (name, output)
                uses.of[id(output)] = 0

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in watched.items()]
    try:
        with spelt_out(), uses:
            output = model(torch.zeros(1, 3, image_size, image_size))
    finally:
        for hook in hooks:
            hook.remove()
    users = Counter(id(tensor) for module in model.modules() for tensor in module._parameters.values())
    foldable = [
        (convolution, norm)
        for convolution, norm, between in pairs
        if calls[convolution] == calls[norm] == uses.of[between] == 1
        and _is_plain(watched[convolution])
        and users[id(watched[convolution].weight)] == 1  # else each layer would get a weight of its own
        and _can_be_folded(watched[norm])
    ]
    return Observation(output, calls, foldable)


def after_batchnorm(norm: nn.Module) -> nn.Module:
    """What is left of a BatchNorm that is folded: nothing, or timm's activation behind it."""
    if not _has_activation(norm):
        return nn.Identity()
    return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))


def _is_plain(convolution: nn.Module) -> bool:
    """Not one that does something to its weight first."""
    return type(convolution).forward is nn.Conv2d.forward


def _can_be_folded(norm: nn.Module) -> bool:
    return norm.running_mean is not None and (type(norm) is nn.BatchNorm2d or _has_activation(norm))


def _has_activation(norm: nn.Module) -> bool:
    """Whether it is timm's BatchNorm with an activation in it."""
    return type(norm).__name__ == "BatchNormAct2d"


class _Uses(TorchFunctionMode):
    """Counts, by a tensor's id, the functions that make other tensors of it; asking for its shape is no use."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[int] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(isinstance(value, Tensor) for value in tree_leaves(result)):
            self.of.update({id(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)})
        return result
