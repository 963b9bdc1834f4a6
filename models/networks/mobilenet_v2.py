"""MobileNetV2 1.0 (Sandler et al. 2018), torchvision's topology."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.config import Scope
from models.network import Network, register

if TYPE_CHECKING:
    from torch import nn


def _build(num_classes: int) -> nn.Module:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=num_classes)


def _sequential(model: nn.Module) -> nn.Sequential:
    from torch import nn

    from models.layers import sequential

    return sequential(
        ("features", model.get_submodule("features")),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("classifier", model.get_submodule("classifier")),
    )


register(
    Network(
        name="mobilenet_v2",
        title="MobileNetv2-1.0",
        build=_build,
        head="classifier.1",
        sequential=_sequential,
        # Reproduces the published compression ratios: depthwise convolutions and the classifier stay dense.
        scope=Scope(depthwise=False, exclude=("classifier.*",)),
        pretrained="MobileNet_V2_Weights.IMAGENET1K_V1",
    )
)
