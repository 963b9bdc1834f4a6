"""How trainings behind artifacts are carried out: on which device, by which processes, with checkpoints beside them.

Of several processes the first builds and tells the others, by an `Order`, what to train along with it (`followers`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from coreml_prune_bench.bench.build import apple_gpu
from coreml_prune_bench.bench.training_options import TrainingOptions
from coreml_prune_bench.models.checkpoints import Checkpoint
from coreml_prune_bench.models.devices import choose_device
from coreml_prune_bench.models.distributed import ALONE, Team
from coreml_prune_bench.models.training import Session

if TYPE_CHECKING:
    from coreml_prune_bench.models.pruning.config import PruningConfig

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""

DENSE_ORDER_SEED = 0
"""Of the order of the images in a dense network's training: there is one such network, whatever the trials."""

_PACE_INTERVAL_S = 600


@dataclass(frozen=True)
class Order:
    """What the first process has the others train with it.

    config: that of the fine-tuning; None for the dense network. members: positions of the training images that stay.
    stay_dense: layers that no config prunes.
    """

    network: str
    config: "PruningConfig | None"
    trial: int
    members: np.ndarray
    stay_dense: tuple[str, ...] = ()


class Trainings:
    """The sessions of a run's trainings, and what is told while they run.

    Raises BenchError where the device that `options` name is not there.
    """

    def __init__(self, options: TrainingOptions, progress: Progress) -> None:
        self._options = options
        self._progress = progress
        self._team = options.team or ALONE
        self.device = device_called(options.device, self._team)
        self.say = options.say

    def session(self, order: Order | None, folder: Path, key: str) -> Session:
        """How a training runs whose result goes to the artifact `key` in `folder`; without an order, alone."""
        interval_s = 60 * self._options.checkpoint_minutes
        checkpoint = Checkpoint(checkpoint_file(folder, key), key, interval_s, self.say)
        if order is None:
            return Session(self.device, checkpoint=checkpoint)
        return Session(self.device, self._team, order, checkpoint)

    def within(self, description: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(description, done, total)

    def with_pace(self, name: str, description: str) -> Callable[[int, int], None]:
        """`within`, and now and then a line with the pace: bars are for terminals alone."""
        pace = _Pace()

        def progress(done: int, total: int) -> None:
            self._progress(description, done, total)
            if line := pace.line(done, total):
                self.say(f"{name}: {description}: {line}")

        return progress


def checkpoint_file(folder: Path, key: str) -> Path:
    """Beside the artifact `key`, whose folder this is, or the one in which it is being made."""
    return folder.with_name(f".{key[:16]}.checkpoint")


def remove_checkpoint(folder: Path, key: str) -> None:
    """Of an artifact that is complete; and what a killed run may have left of writing one."""
    file = checkpoint_file(folder, key)
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()


def device_called(name: str, team: Team) -> torch.device:
    return choose_device(name, local_rank=team.local_rank, processes=team.count, mps_is_right=apple_gpu.is_right)


class _Pace:
    """How fast a training is, in a line every few minutes."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._told_s = 0.0

    def line(self, done: int, total: int) -> str | None:
        """What to say after `done` of `total` steps; None where it is not time for it."""
        now_s = time.monotonic()
        if self._first is None:
            self._first, self._told_s = (done, now_s), now_s
            return None
        if now_s - self._told_s < _PACE_INTERVAL_S:
            return None
        self._told_s = now_s
        first, since_s = self._first  # not step 1 of a training that was resumed
        per_s = (done - first) / (now_s - since_s)
        left = timedelta(seconds=round((total - done) / per_s))
        return f"step {done:,} of {total:,}, {per_s:.2f} steps/s, {left} left"
