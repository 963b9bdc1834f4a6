"""One process of those that `test_distributed.py` starts: `python -m tests.models.part_of_team OUT.pt`.

The first one writes what the team came to, and what it comes to alone.
"""

import sys

import torch
from torch import nn

from coreml_prune_bench.models.config import Distillation, TrainingConfig
from coreml_prune_bench.models.distributed import ALONE, Team, join
from coreml_prune_bench.models.pruning.magnitude_pruner.config import MagnitudePrunerConfig
from coreml_prune_bench.models.pruning.magnitude_pruner.prune import fine_tune
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.training import Session
from coreml_prune_bench.models.weights import untrained_model
from tests.latency.noise import Noise
from tests.tiny_network import TINY

TRAINING = TrainingConfig(epochs=4, batch_size=8, learning_rate=0.05, label_smoothing=0.1, batchnorm_samples=40)
CONFIG = MagnitudePrunerConfig(sparsity=0.75, updates=7, distillation=Distillation(), training=TRAINING)


def fine_tuned(team: Team, seed: int) -> nn.Module:
    """After 20 steps; `seed` is of the weights, which those of the first process take the place of."""
    model = untrained_model(TINY, 4, seed=seed)
    model.pool = nn.Sequential(model.pool, nn.Dropout(0.3))
    session = Session(team=team, order="fine-tune")
    fine_tune(CONFIG, PruningTask(TINY, model, 16, Noise(), 1, progress=lambda done, total: None, session=session))
    return model


def main(out: str) -> None:
    with join() as team:
        if not team.leads:
            for _ in team.orders():
                fine_tuned(team, seed=5)
            return
        together = [fine_tuned(team, seed=0).state_dict() for _ in range(2)]
    torch.save({"together": together, "alone": fine_tuned(ALONE, seed=0).state_dict()}, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
