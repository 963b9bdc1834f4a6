"""Moving elements between channels, space and batch, against NumPy and torch."""

from pathlib import Path

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb

from tests.runtimes.portable.programs import Case, check, identity

IMAGE = np.random.default_rng(0).normal(0, 1, (2, 8, 4, 6)).astype(np.float32)


def depth_to_space(x: np.ndarray, block: int) -> np.ndarray:
    n, c, h, w = x.shape
    blocks = x.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(x: np.ndarray, block: int) -> np.ndarray:
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // block, block, w // block, block).transpose(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * block**2, h // block, w // block)


def space_to_batch(x: np.ndarray) -> np.ndarray:
    """Blocks of 2 x 3, with one row and then one row more, and two columns and one column."""
    x = np.pad(x, [(0, 0), (0, 0), (1, 1), (2, 1)])
    return np.concatenate([x[:, :, row::2, column::3] for row in range(2) for column in range(3)])


REARRANGING: dict[str, Case] = {
    "depth_to_space": (lambda x: mb.depth_to_space(x=x, block_size=2), lambda x: depth_to_space(x, 2)),
    "space_to_depth": (lambda x: mb.space_to_depth(x=x, block_size=2), lambda x: space_to_depth(x, 2)),
    "pixel_shuffle": (
        lambda x: mb.pixel_shuffle(x=x, upscale_factor=2),
        lambda x: torch.pixel_shuffle(torch.from_numpy(x), 2).numpy(),
    ),
    "pixel_unshuffle": (
        lambda x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)),
        lambda x: torch.pixel_unshuffle(torch.from_numpy(x), 2).numpy(),
    ),
    "space_to_batch": (
        lambda x: mb.space_to_batch(x=x, block_shape=[2, 3], paddings=[[1, 1], [2, 1]]),
        space_to_batch,
    ),
    "batch_to_space": (
        lambda x: mb.batch_to_space(
            x=mb.space_to_batch(x=x, block_shape=[2, 3], paddings=[[1, 1], [2, 1]]),
            block_shape=[2, 3],
            crops=[[1, 1], [2, 1]],
        ),
        identity,
    ),
}


def test_rearranging(tmp_path: Path) -> None:
    check(tmp_path / "m.mlpackage", REARRANGING, IMAGE)
