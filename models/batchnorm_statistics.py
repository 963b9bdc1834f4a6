"""BatchNorm's running statistics, measured on a few images.

A few hundred images show the statistics of a whole training set poorly, and images that nobody took do not show them at
all. What pruning does to them they show well: a pruned network keeps the dense network's statistics, changed as the
images say that they have changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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
    yield
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
    known = [(layer.running_mean, layer.running_var) for layer in _layers(dense)]
    copies = [(_copy(mean), _copy(variance)) for mean, variance in known]
    with measured_batchnorm(dense), measured_batchnorm(pruned):
        yield
    for own, layer, (mean, variance) in zip(_layers(pruned), _layers(dense), copies, strict=True):
        if mean is None or variance is None:  # it normalizes by each batch, and remembers nothing
            continue
        assert own.running_mean is not None
        assert own.running_var is not None
        assert layer.running_mean is not None
        assert layer.running_var is not None
        ratio = (own.running_var + layer.eps) / (layer.running_var + layer.eps)
        own.running_mean.add_(ratio.sqrt() * (mean - layer.running_mean))
        own.running_var.copy_(((variance + layer.eps) * ratio - layer.eps).clamp(min=0))
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)


def _layers(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def _copy(values: torch.Tensor | None) -> torch.Tensor | None:
    return None if values is None else values.clone()
