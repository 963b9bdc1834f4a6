"""A fourth network, small enough to train in a second: all it takes to add one is a file like this."""

from __future__ import annotations

from torch import nn

from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.registry import register


class Tiny(nn.Module):
    """Convolution, depthwise convolution, pointwise convolution, pooling, linear layer; BatchNorm after each conv."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Linear(128, num_classes)

    def forward(self, images):
        return self.classifier(self.pool(self.features(images)).flatten(1))


TINY = register(Network(name="tiny", title="Tiny", build=Tiny, head="classifier", scope=Scope(depthwise=False)))
