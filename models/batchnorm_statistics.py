"""BatchNorm's running statistics, measured on a few images.

A few hundred images show the statistics of a whole training set poorly, and images that nobody took do not show them at
all. What pruning does to them they show well: a pruned network keeps the dense network's statistics, changed as the
images say that they have changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def measured_batchnorm(model: nn.Module) -> Iterator[None]:
    """BatchNorm's running statistics become, in place, those of what passes `model` inside.

    All else stays in eval mode, so the result does not depend on dropout.
    """
    layers = _layers(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average over batches
        layer.train()
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


@contextmanager
def carried_over_batchnorm(pruned: nn.Module, dense: nn.Module) -> Iterator[None]:
    """The running statistics of `pruned` become those of `dense`, changed as they differ on what passes both inside.

    Of each channel the deviation changes by its ratio, and the mean stays as many deviations from that of the images.
    Both have the same layers; `dense` is as it was afterwards. On images with the statistics that `dense` knows this is
    measuring them again.
    """
    known = [_statistics(layer) for layer in _layers(dense)]
    with measured_batchnorm(dense), measured_batchnorm(pruned):
        yield
    for own, other, (mean, variance) in zip(_layers(pruned), _layers(dense), known, strict=True):
        changed, shown = _statistics(own), _statistics(other)
        if not mean.numel():
            continue
        ratio = (changed[1] + other.eps) / (shown[1] + other.eps)
        _set(own, changed[0] + ratio.sqrt() * (mean - shown[0]), (variance + other.eps) * ratio - other.eps)
        _set(other, mean, variance)


def _layers(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def _statistics(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Copies of mean and variance; empty where it normalizes by each batch and remembers nothing."""
    if layer.running_mean is None or layer.running_var is None:
        return torch.empty(0), torch.empty(0)
    return layer.running_mean.clone(), layer.running_var.clone()


def _set(layer: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance.clamp(min=0))
