"""MobileNetV3-small (Howard et al. 2019), torchvision's topology."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.registry import register

if TYPE_CHECKING:
    from torch import nn


def _build(num_classes: int) -> nn.Module:
    from torchvision.models import mobilenet_v3_small

    return mobilenet_v3_small(num_classes=num_classes)


register(
    Network(
        name="mobilenet_v3_small",
        title="MobileNetv3-small",
        build=_build,
        head="classifier.3",
        # Of the scopes tried, the one that comes closest to both published compression ratios.
        scope=Scope(min_elements=4096),
        pretrained="MobileNet_V3_Small_Weights.IMAGENET1K_V1",
    )
)
