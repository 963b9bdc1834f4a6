"""ResNet50 (He et al. 2016), torchvision's topology."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.registry import register

if TYPE_CHECKING:
    from torch import nn


def _build(num_classes: int) -> nn.Module:
    from torchvision.models import resnet50

    return resnet50(num_classes=num_classes)


register(
    Network(
        name="resnet50",
        title="ResNet50",
        build=_build,
        head="fc",
        # Reproduces the published compression ratios: all but the first convolution.
        scope=Scope(exclude=("conv1",)),
        pretrained="ResNet50_Weights.IMAGENET1K_V1",
    )
)
