"""Adaptive gradient clipping (Brock et al. 2021, High-Performance Large-Scale Image Recognition Without Normalization).

One learning rate cannot serve filters of very different lengths, as of a network whose BatchNorm was folded into its
weights and taken out again (TensorFlow Lite's, quantized ones): a step that moves a long filter by a thousandth throws
a short one away.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_LEAST_LENGTH = 1e-3
"""The paper's: what is zero, such as a fresh bias, has to begin to move."""


@torch.no_grad()
def shorten(parameters: Iterable[nn.Parameter], share: float) -> None:
    """Shorten gradients, in place, to `share` of the length of the filter, or row of a matrix, that they belong to.

    Vectors (biases, BatchNorm's) count as a whole. Other than in the paper a network's last layer is shortened, too.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            longest = share * _lengths(parameter).clamp_min(_LEAST_LENGTH)
            parameter.grad.mul_((longest / _lengths(parameter.grad).clamp_min(1e-12)).clamp_max(1.0))


def _lengths(values: Tensor) -> Tensor:
    """[n, 1, ...] of [n, ...]; of a vector its one length."""
    dimensions = tuple(range(1, values.dim())) or None
    return torch.linalg.vector_norm(values, dim=dimensions, keepdim=True)
