"""The tiny network with weights worth pruning, and what an algorithm makes of it."""

import torch
from torch import nn

from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.task import Pruned, PruningTask
from coreml_prune_bench.models.training import reestimate_batchnorm
from coreml_prune_bench.models.weights import untrained_model
from tests.latency.noise import Noise
from tests.tiny_network import TINY

SIZE = 16
TRAINING = {"epochs": 4, "batch_size": 8, "learning_rate": 0.05}
IN_SCOPE = {"features.0", "features.6", "classifier"}


def dense(seed: int = 0) -> nn.Module:
    """A network whose BatchNorm statistics and scales are not the trivial ones."""
    model = untrained_model(TINY, 4, seed=seed).eval()
    reestimate_batchnorm(model, Noise(), samples=40)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(seed))
    return model


def pruned(config: PruningConfig, model: nn.Module | None = None, trial: int = 0) -> tuple[Pruned, nn.Module]:
    """What the algorithm makes of the tiny network, and the torch network that it leaves."""
    model = model or dense()
    task = PruningTask(TINY, model, SIZE, Noise(), trial, progress=lambda done, total: None)
    return prune(config, task), model
