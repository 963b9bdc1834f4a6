"""Normalization, against its definitions in NumPy and torch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from torch.nn import functional

from tests.runtimes.portable.programs import Drawn, Operations, all_close, run


def layer_normal(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def test_layer_norm_over_any_axes(drawn: Drawn, tmp_path: Path) -> None:
    x = drawn(2, 3, 4, 5)
    gamma, beta, last = drawn(3, 5), drawn(3, 5), drawn(5)
    operations: Operations = {
        "all": lambda x: mb.layer_norm(x=x, axes=[0, 1, 2, 3]),
        "last": lambda x: mb.layer_norm(x=x, axes=[-1], gamma=last, beta=-last, epsilon=np.float32(0.1)),
        "channels": lambda x: mb.layer_norm(x=x, axes=[1]),
        "apart": lambda x: mb.layer_norm(x=x, axes=[-1, 1], gamma=gamma, beta=beta),
        "leading": lambda x: mb.layer_norm(x=x, axes=[0, 1]),
    }
    references = {
        "all": layer_normal(x, (0, 1, 2, 3), 1e-5),
        "last": layer_normal(x, (3,), 0.1) * last - last,
        "channels": layer_normal(x, (1,), 1e-5),
        "apart": layer_normal(x, (1, 3), 1e-5) * gamma[:, None] + beta[:, None],
        "leading": layer_normal(x, (0, 1), 1e-5),
    }
    all_close(run(tmp_path, operations, x), references)


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 3, 5), (2, 4, 3, 2, 2)])
def test_normalization_of_every_rank(shape: tuple[int, ...], drawn: Drawn, tmp_path: Path) -> None:
    x, gamma, beta = drawn(*shape), drawn(4), drawn(4)
    tensor = torch.from_numpy(x)
    spatial = tuple(range(2, len(shape)))
    per_channel = (4, *[1] * len(spatial))
    operations: Operations = {
        "instance_norm": lambda x: mb.instance_norm(x=x, gamma=gamma, beta=beta, epsilon=np.float32(0.01)),
        "instance_norm, plain": lambda x: mb.instance_norm(x=x),
        "l2_norm": lambda x: mb.l2_norm(x=x, epsilon=np.float32(0.5)),
    }
    instance = layer_normal(x, spatial, 0.01)
    references = {
        "instance_norm": instance * gamma.reshape(per_channel) + beta.reshape(per_channel),
        "instance_norm, plain": layer_normal(x, spatial, 1e-5),
        "l2_norm": x / np.sqrt((x**2).sum((-3, -2, -1), keepdims=True) + 0.5),
    }
    for size in (1, 2, 3, 6):
        name = f"local_response_norm {size}"
        operations[name] = lambda x, size=size: mb.local_response_norm(
            x=x, size=size, alpha=np.float32(0.5), beta=np.float32(0.6), k=np.float32(1.5)
        )
        references[name] = functional.local_response_norm(tensor, size, alpha=0.5, beta=0.6, k=1.5).numpy()
    all_close(run(tmp_path, operations, x), references)
