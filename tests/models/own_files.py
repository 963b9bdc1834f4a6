"""Files that a user brings: a network in two of them, and a suite that prunes it."""

NET = """
import torch
from torch import nn
from blocks import Block


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.block = Block(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(16, num_classes)

    def forward(self, images, upside_down=False):
        if upside_down:
            images = images.flip(2)
        x = self.block(torch.relu(self.norm(self.stem(images))))
        x = nn.functional.avg_pool2d(x, 4).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x)[0]
        return self.head(x.mean(1))


class Branching(Net):
    def forward(self, images):
        if images.mean() > 1000:
            images = -images
        return super().forward(images)


def net(num_classes=10):
    return Net(num_classes)


def branching(num_classes=10):
    return Branching(num_classes)


def fixed():
    return Net(7)


def must_be_told(num_classes):
    return Net(num_classes)


def without_head():
    return nn.Conv2d(3, 10, 1)


def wrong():
    return "a network"


def broken():
    return Net(3) + missing


def hungry(depth):
    return Net(depth)
"""


BLOCK = """
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return (x + self.norm(self.conv(x))).relu()
"""


SUITE = """
description = "mine"
models = ["net.py:net", "net.py:branching"]
weights = "none"
trials = 1
data.default = "digits"
training = { epochs = 3, batch_size = 32, learning_rate = 0.02 }

[[configs]]
algorithm = "post-training"
sparsity = 0.5

[[configs]]
algorithm = "sparse-gpt"
sparsity = 0.5
calibration_samples = 32

[[configs]]
algorithm = "blockwise-reconstruction"
sparsity = 0.5
calibration_samples = 32
held_back_samples = 8
steps = 5

[[configs]]
algorithm = "magnitude-pruner"
models = ["net.py:net"]
sparsity = 0.5
training = { epochs = 1, batch_size = 32, learning_rate = 0.01 }
"""


WALKING = ("sparse-gpt", "blockwise-reconstruction")
"""The algorithms that walk a network stage by stage."""
