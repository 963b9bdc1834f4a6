"""ResNet50 (He et al. 2016), torchvision's topology."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.config import Scope
from models.network import Network, register

if TYPE_CHECKING:
    from torch import nn

_BEFORE_FLATTEN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")


def _build(num_classes: int) -> nn.Module:
    from torchvision.models import resnet50

    return resnet50(num_classes=num_classes)


def _sequential(model: nn.Module) -> nn.Sequential:
    from torch import nn

    from models.layers import sequential

    stages = [(name, model.get_submodule(name)) for name in _BEFORE_FLATTEN]
    return sequential(*stages, ("flatten", nn.Flatten()), ("fc", model.get_submodule("fc")))


register(
    Network(
        name="resnet50",
        title="ResNet50",
        build=_build,
        head="fc",
        sequential=_sequential,
        # Reproduces the published compression ratios: all but the first convolution.
        scope=Scope(exclude=("conv1",)),
        pretrained="ResNet50_Weights.IMAGENET1K_V1",
    )
)
