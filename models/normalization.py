"""A network that was trained with other numbers than ImageNet's, made to take what all networks here take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coreml_prune_bench.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn


def renormalized(model: nn.Module, asked: Preprocessing) -> nn.Module:
    """`model`, taking pixels normalized as ImageNet's are, where it was trained with what `asked` says; in place.

    Done again, the later word counts.
    """
    import torch

    from coreml_prune_bench.models.training import IMAGE_MEAN, IMAGE_STD

    factor, summand = (_by_channel(values) for values in asked.affine())
    mean, std = _by_channel(IMAGE_MEAN), _by_channel(IMAGE_STD)
    scale, shift = 255 * factor * std, 255 * factor * mean + summand
    if hasattr(model, "own_scale"):
        model.own_scale, model.own_shift = scale, shift
        return model
    if torch.allclose(scale, torch.ones(())) and torch.allclose(shift, torch.zeros(()), atol=1e-6):
        return model
    model.register_buffer("own_scale", scale, persistent=False)
    model.register_buffer("own_shift", shift, persistent=False)
    network = type(model)

    def forward(self: Any, images: Tensor) -> Tensor:
        return network.forward(self, images * self.own_scale + self.own_shift)

    # By its class: in a module around it, layers and weights would have other names.
    model.__class__ = type(network.__name__, (network,), {"forward": forward})
    return model


def _by_channel(values: Sequence[float]) -> Tensor:
    """[1, 3, 1, 1], or [1, 1, 1, 1] for one number."""
    import torch

    return torch.tensor(tuple(values)).view(1, -1, 1, 1)
