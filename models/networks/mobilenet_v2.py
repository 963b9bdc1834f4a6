"""MobileNetV2 1.0 (Sandler et al. 2018), torchvision's topology."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.registry import register

if TYPE_CHECKING:
    from torch import nn


def _build(num_classes: int) -> nn.Module:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=num_classes)


register(
    Network(
        name="mobilenet_v2",
        title="MobileNetv2-1.0",
        build=_build,
        head="classifier.1",
        # Reproduces the published compression ratios: depthwise convolutions and the classifier stay dense.
        scope=Scope(depthwise=False, exclude=("classifier.*",)),
        pretrained="MobileNet_V2_Weights.IMAGENET1K_V1",
    )
)
