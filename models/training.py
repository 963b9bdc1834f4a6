"""Training on labelled images: from scratch, with a new head, and as the fine-tuning that MagnitudePruner needs.

Runs that differ only in `order_seed` start from the same weights, see the same images with the same augmentation and
draw the same dropout masks: they differ in the order of the data and in nothing else.
"""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.errors import BenchError
from models.config import TrainingConfig

# ImageNet's channel statistics, for pixels in [0, 1]; conversion puts the same numbers into the Core ML model.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


class LabelledImages(Protocol):
    """Images to train on and calibrate with."""

    def __len__(self) -> int: ...

    def images(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        """uint8 [n, H, W, 3]; augmented as in that epoch, or as in evaluation where epoch is None."""
        ...

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """int64 [n]."""
        ...


def train(
    model: nn.Module,
    data: LabelledImages,
    config: TrainingConfig,
    *,
    order_seed: int,
    after_step: Callable[[], None] = lambda: None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Train `model` in place and leave it in eval mode.

    after_step is called after each optimizer step. Raises BenchError when there are fewer images than a batch needs.
    """
    total = total_steps(len(data), config)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=total)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # dropout: the same masks in every trial
        for step, (epoch, indices) in enumerate(_batches(len(data), config, order_seed), start=1):
            inputs = normalize(data.images(indices, epoch))
            targets = torch.from_numpy(data.labels(indices))
            loss = functional.cross_entropy(model(inputs), targets, label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            after_step()
            progress(step, total)
    model.eval()
    if config.batchnorm_samples:
        reestimate_batchnorm(model, data, samples=config.batchnorm_samples)


def total_steps(images: int, config: TrainingConfig) -> int:
    """Optimizer steps of a whole run; a last batch that is not full is dropped."""
    if images < config.batch_size:
        raise BenchError(f"{images} training images are fewer than one batch (batch_size = {config.batch_size})")
    return config.epochs * (images // config.batch_size)


def normalize(images: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] to normalized float32 [N, 3, H, W], what the networks take."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).div_(255)  # [N, 3, H, W]
    mean = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    return pixels.sub_(mean).div_(std).contiguous()


def calibration_batches(data: LabelledImages, samples: int, batch_size: int) -> Iterator[Tensor]:
    """Normalized batches of `samples` training images (or all, if fewer), always the same ones in the same order."""
    chosen = np.random.default_rng(0).permutation(len(data))[:samples]
    for batch in np.array_split(chosen, math.ceil(len(chosen) / batch_size)):
        yield normalize(data.images(batch, None))


@torch.no_grad()
def reestimate_batchnorm(model: nn.Module, data: LabelledImages, *, samples: int) -> None:
    """Measure BatchNorm's running statistics again, in place: pruned weights no longer produce the old ones.

    All else stays in eval mode, so the result does not depend on dropout.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average over batches
        layer.train()
    for batch in calibration_batches(data, samples, batch_size=64):
        model(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def _batches(images: int, config: TrainingConfig, order_seed: int) -> Iterator[tuple[int, np.ndarray]]:
    for epoch in range(config.epochs):
        order = np.random.default_rng((order_seed, epoch)).permutation(images)
        for start in range(0, images - config.batch_size + 1, config.batch_size):
            yield epoch, order[start : start + config.batch_size]
