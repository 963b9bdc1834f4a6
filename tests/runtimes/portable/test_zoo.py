"""torchvision's families of networks, in their smallest members or smaller ones of the same blocks, against torch.

`python -m tests.runtimes.portable.zoo` does the same with every network that torchvision has.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from coreml_prune_bench.runtimes.portable import load
from tests.runtimes.portable import zoo

CLASSES = 20


def swin(version: int) -> nn.Module:
    options = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2} if version == 2 else {}
    return models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=CLASSES, **options)


# Each with the size of its input.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "convnext": (
        lambda: models.ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)], num_classes=CLASSES),
        32,
    ),
    "densenet": (lambda: models.DenseNet(8, (2, 2), 16, num_classes=CLASSES), 32),
    "efficientnet": (
        lambda: models.EfficientNet(
            [MBConvConfig(4, 3, 1, 16, 16, 1), MBConvConfig(4, 5, 2, 16, 24, 2)], 0.2, num_classes=CLASSES
        ),
        32,
    ),
    "googlenet": (
        lambda: models.GoogLeNet(num_classes=CLASSES, aux_logits=False, transform_input=True, init_weights=False),
        32,
    ),
    "maxvit": (
        lambda: models.MaxVit((32, 32), 16, 4, [16, 32], [1, 1], 16, 0.1, num_classes=CLASSES),
        32,
    ),
    "mnasnet": (lambda: models.MNASNet(0.35, num_classes=CLASSES), 32),
    "mobilenet_v3": (lambda: models.mobilenet_v3_small(width_mult=0.35, num_classes=CLASSES), 32),
    "regnet_y": (
        lambda: models.RegNet(
            BlockParams.from_init_params(depth=6, w_0=16, w_a=8.0, w_m=2.0, group_width=8, se_ratio=0.25),
            num_classes=CLASSES,
        ),
        32,
    ),
    "resnet": (lambda: models.resnet18(num_classes=CLASSES), 32),
    "shufflenet": (lambda: models.shufflenet_v2_x0_5(num_classes=CLASSES), 32),
    "squeezenet": (lambda: models.squeezenet1_1(num_classes=CLASSES), 32),
    "swin": (lambda: swin(1), 44),
    "swin_v2": (lambda: swin(2), 44),
    "vit": (lambda: models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=CLASSES), 32),
}


_SLOW = {
    *((name, "float32") for name in ("swin", "maxvit", "googlenet", "mnasnet", "shufflenet", "squeezenet", "regnet_y")),
    ("swin_v2", "float16"),
    ("mobilenet_v3", "float16"),
}
"""Those that take longest, and are much like another one: `make test-slow` has them, and `make conformance` has all."""

CASES = [
    pytest.param(name, precision, marks=pytest.mark.slow if (name, precision) in _SLOW else ())
    for name, precision in [
        *((name, "float32") for name in NETWORKS),
        *((name, "float16") for name in ("densenet", "mobilenet_v3", "swin_v2")),
    ]
]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_network_computes_what_torch_does(name: str, precision: str, tmp_path: Path) -> None:
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    network, x = zoo.settled(make(), size), zoo.images(3, size)
    zoo.convert(network, size, tmp_path / "m.mlpackage", precision)
    model = load(tmp_path / "m.mlpackage", threads=1)
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    assert model.any_batch
    assert zoo.relative_error(model.predict_batch({"x": x})["y"], expected) < zoo.LARGEST_ERRORS[precision]
    # The samples do not look the same to it.
    assert zoo.relative_error(expected[1:], expected[:-1]) > 100 * zoo.LARGEST_ERRORS["float32"]
