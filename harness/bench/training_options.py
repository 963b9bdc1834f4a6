"""How the trainings of a run are carried out: by which processes, on which device, with checkpoints how often.

None of it is part of what is measured, nor of a cell's key. This module does not import torch where one process runs.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coreml_prune_bench.models.distributed import Team


@dataclass(frozen=True)
class TrainingOptions:
    """device: as `choose_device` of models.devices takes it. checkpoint_minutes: between two checkpoints.

    say: takes lines for the user. team: the processes that torchrun started; None where it did not.
    """

    device: str = "auto"
    checkpoint_minutes: float = 10
    say: Callable[[str], None] = lambda line: None
    team: "Team | None" = None


@contextmanager
def torchrun_team() -> Iterator["Team | None"]:
    """The processes that torchrun started, of which this is one; None where it started one or did not start this."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        yield None
        return
    from coreml_prune_bench.models.distributed import join

    with join() as team:
        yield team
