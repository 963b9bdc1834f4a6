"""Several processes that train one network together, each on its share of every batch.

torchrun starts them. Gradients, BatchNorm's statistics and dropout's masks are those of the whole batch, so that the
result is that of one process, up to rounding.

The first process leads: it alone reads and writes results, and tells the others what to train. The others wait for
that, so that nobody waits in vain when the first finds a thing done.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from coreml_prune_bench.models.checkpoints import State, pack, unpack
from coreml_prune_bench.models.errors import BenchError
from coreml_prune_bench.models.quiet import unprinted

_BETWEEN_TRAININGS = timedelta(days=30)
"""How long the others wait for the first process, which may evaluate for hours."""
_SETTLING_S = 0.5


class Team:
    """The processes of one run, of which this is number `rank` of `count`, and `local_rank` on its machine.

    is_at_work: whether it is in something that all of them do, so that the others do not listen.
    """

    def __init__(self, rank: int = 0, count: int = 1, local_rank: int = 0) -> None:
        self.rank = rank
        self.count = count
        self.local_rank = local_rank
        self.is_at_work = False
        self._group: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.count == 1

    def share_of(self, batch_size: int) -> slice:
        """The part of each batch that falls to this process. Raises BenchError if not all get the same."""
        if batch_size % self.count:
            raise BenchError(
                f"batch_size = {batch_size} does not divide among {self.count} processes; expected a multiple of that"
            )
        size = batch_size // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    @contextmanager
    def at_work(self, order: object) -> Iterator[None]:
        """Around what all of them do: the others learn of it by `order`, and until it ends listen to no other.

        Where one fails in it, the others cannot go on. Its error then ends this process, whatever it cost alone.
        """
        if self.is_alone:
            yield
            return
        self.is_at_work = True
        try:
            if self.leads:
                self._send((order,))
            yield
        except BenchError:
            raise
        except Exception as error:
            raise ConnectionAbortedError(
                f"process {self.rank} of {self.count} failed, and leaves the others"
            ) from error
        self.is_at_work = False

    def orders(self) -> Iterator[Any]:
        """What the first process has the others do, until it lets them go."""
        while (message := self._receive()) is not None:
            yield message[0]

    def dismiss(self) -> None:
        """Let the others go."""
        if not self.is_alone:
            self._send(None)

    def share(self, state: State) -> State:
        """The first process's state, in each of them."""
        if self.is_alone:
            return state
        if self.leads:
            self._send(pack(state))
            return state
        return unpack(self._receive())

    def group(self, device: torch.device) -> dist.ProcessGroup:
        """What tensors on `device` travel in. All processes ask for it at the same point."""
        if self._group is None:
            with unprinted():
                self._group = dist.new_group(backend="nccl" if device.type == "cuda" else "gloo")
        return self._group

    def _send(self, value: object) -> None:
        dist.broadcast_object_list([value], src=0)

    def _receive(self) -> Any:
        values: list[Any] = [None]
        dist.broadcast_object_list(values, src=0)
        return values[0]


ALONE = Team()


@contextmanager
def join() -> Iterator[Team]:
    """The team that torchrun started this process for. At the end, the first process lets the others go."""
    with unprinted():  # Gloo says of each process how many others it has found (torch 2.8)
        dist.init_process_group("gloo", timeout=_BETWEEN_TRAININGS)
    team = Team(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))
    try:
        yield team
    finally:
        if not team.is_at_work:  # else torchrun ends the others, because this process fails
            if team.leads:
                team.dismiss()
            # Gloo's threads need the interpreter's lock to let go of the last tensors, and what destroys the group
            # waits for these threads with that lock in its hand: seen to hang (torch 2.7.0).
            time.sleep(_SETTLING_S)
            dist.destroy_process_group()


@contextmanager
def training_together(model: nn.Module, team: Team, device: torch.device) -> Iterator[nn.Module]:
    """Inside, `model` as one of the team's processes trains it: each takes its share of a batch, all get the same.

    It must be reached by all of them with the same weights. Only dropout and BatchNorm that are modules of their own
    are known to look at the batch or to draw random numbers.
    """
    if team.is_alone:
        yield model
        return
    group = team.group(device)
    own = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d | nn.Dropout)}
    for name, layer in own.items():
        model.set_submodule(name, _for_whole_batch(layer, team, group, device))
    # Buffers are the same everywhere as they are, and the pruner replaces some of them, which DDP would not notice.
    yield DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        process_group=group,
        broadcast_buffers=False,
    )
    for name, layer in own.items():
        model.set_submodule(name, layer)


def _for_whole_batch(
    layer: nn.BatchNorm2d | nn.Dropout, team: Team, group: dist.ProcessGroup, device: torch.device
) -> nn.Module:
    """What stands for `layer` meanwhile; it shares its parameters and statistics."""
    if isinstance(layer, nn.Dropout):
        return _Dropout(layer, team).train(layer.training)
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(layer, group)
    return _BatchNorm(layer, team.count, group).train(layer.training)


class _Dropout(nn.Dropout):
    """This process's rows of the mask for the whole batch. All draw it, from generators that stand alike."""

    def __init__(self, layer: nn.Dropout, team: Team) -> None:
        super().__init__(layer.p)
        self._team = team

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        whole = values.new_ones((len(values) * self._team.count, *values.shape[1:]))
        return values * functional.dropout(whole, self.p)[self._team.share_of(len(whole))]


class _BatchNorm(nn.BatchNorm2d):
    """torch.nn.SyncBatchNorm, which knows GPUs alone, for the rest. Every process has as many images."""

    def __init__(self, layer: nn.BatchNorm2d, processes: int, group: dist.ProcessGroup) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum)
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self._processes = processes
        self._group = group

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return super().forward(values)
        mean = self._over_all(values)
        centred = values - mean.view(1, -1, 1, 1)
        variance = self._over_all(centred.square())
        self._update_statistics(mean.detach(), variance.detach(), values.numel() // len(mean) * self._processes)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    def _over_all(self, values: Tensor) -> Tensor:
        """[N, C, H, W] of this process to the mean by channel over all processes, [C]."""
        total: Tensor = all_reduce(values.mean((0, 2, 3)), group=self._group)
        return total / self._processes

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
