"""Whether Apple's GPU computes under torch what the CPU does, on this machine: it did not on all.

Copies that do not wait (`non_blocking`) of memory that is not pinned can read what was released meanwhile
(https://github.com/pytorch/pytorch/issues/139550), and results differ between versions of macOS
(https://github.com/actions/runner-images/issues/14380).
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from coreml_prune_bench.models.loading import load_ahead

TOLERANCE = 1e-3
"""The largest difference of a weight after one training step, as a fraction of the largest weight."""

_BATCHES, _BATCH = 20, 16


class _Images:
    """Noise, made anew whenever it is asked for, as an augmentation does."""

    def __len__(self) -> int:
        return _BATCHES * _BATCH

    def images(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        return np.stack(
            [np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8) for index in indices]
        )

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return indices.astype(np.int64) % 4


@dataclass(frozen=True)
class Findings:
    """copied: the largest difference of a pixel, 0 if the copies are right. trained: of a weight after one step."""

    copied: float
    trained: float

    @property
    def right(self) -> bool:
        """Fit to train on."""
        return self.copied == 0 and self.trained < TOLERANCE


def device() -> torch.device:
    """Apple's GPU."""
    return torch.device("mps")


def examine() -> Findings:
    """Copy batches to it as a training does, and take one training step there and on the CPU."""
    there = device()
    images = _Images()
    order = [(0, np.arange(start, start + _BATCH)) for start in range(0, len(images), _BATCH)]
    copies = [pixels.cpu().numpy() for pixels, _ in load_ahead(images, order, there)]
    copied = max(
        float(np.abs(one.astype(int) - images.images(at, 0)).max()) for one, (_, at) in zip(copies, order, strict=True)
    )
    batch = torch.from_numpy(images.images(order[0][1], 0)).permute(0, 3, 1, 2).float() / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 16, 3),
            nn.BatchNorm2d(16),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 4),
        )
    after = [_after_a_step(copy.deepcopy(network), batch, place) for place in (torch.device("cpu"), there)]
    largest = max(float(weight.abs().max()) for weight in after[0])
    differences = [float((a - b).abs().max()) for a, b in zip(*after, strict=True)]
    return Findings(copied, max(differences) / largest)


def _after_a_step(network: nn.Module, batch: torch.Tensor, place: torch.device) -> list[torch.Tensor]:
    network.to(place).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    labels = (torch.arange(len(batch)) % 4).to(place)
    nn.functional.cross_entropy(network(batch.to(place)), labels).backward()
    optimizer.step()
    return [parameter.detach().cpu() for parameter in network.parameters()]
