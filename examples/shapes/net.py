"""The network of this example: any function that returns a torch.nn.Module will do."""

from torch import Tensor, nn


class ShapeNet(nn.Module):
    """Three convolutions and a linear layer, some 24,000 weights; takes normalized images [N, 3, H, W]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *self._stage(3, 16, stride=2),
            *self._stage(16, 32, stride=2),
            *self._stage(32, 64, stride=2),
            nn.AdaptiveAvgPool2d(1),
        )
        self.head = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(channels_in: int, channels_out: int, stride: int) -> tuple[nn.Module, ...]:
        convolution = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).flatten(1))


def build(num_classes: int = 4) -> nn.Module:
    return ShapeNet(num_classes)
