"""Training on labelled images: from scratch, with another head, and as the fine-tuning that MagnitudePruner needs.

Runs that differ only in `order_seed` start from the same weights, see the same images with the same augmentation and
draw the same dropout masks: they differ in the order of the data and in nothing else. Where a training runs and whether
it was interrupted is no part of what it is: on a CPU with as many threads it gives the same bits, elsewhere the same up
to rounding.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from coreml_prune_bench.models.batchnorm_statistics import measured_batchnorm
from coreml_prune_bench.models.checkpoints import Checkpoint, State, signals_held_back
from coreml_prune_bench.models.config import Distillation, TrainingConfig
from coreml_prune_bench.models.devices import (
    CPU,
    describe,
    low_precision,
    own_random_numbers,
    random_state,
    set_random_state,
    tuned,
)
from coreml_prune_bench.models.distributed import ALONE, Team, training_together
from coreml_prune_bench.models.errors import BenchError, CellFailedError
from coreml_prune_bench.models.gradient_clipping import shorten
from coreml_prune_bench.models.layout import back_from_device, move, to_device
from coreml_prune_bench.models.loading import Images, LabelledImages, load_ahead
from coreml_prune_bench.models.schedules import rate_and_momentum

# ImageNet's channel statistics, for pixels in [0, 1]; conversion puts the same numbers into the Core ML model.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

_NOTHING_TO_TRAIN = (
    "it cannot be trained: no parameter that its output depends on has requires_grad, or forward runs under no_grad; "
    "call requires_grad_(True) on what may change"
)


class Pruner(Protocol):
    """What changes the network along the training, and has a state of its own beside the network's."""

    def step(self) -> None:
        """Called after each optimizer step."""
        ...

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


@dataclass(frozen=True)
class Session:
    """How a training runs, with no say in what it is.

    team: the processes that share the work, and order: what the others are told when it begins. checkpoint: where the
    first of them keeps the state; None for nowhere.
    """

    device: torch.device = CPU
    team: Team = ALONE
    order: object = None
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class Teacher:
    """The network whose outputs are learnt from, in eval mode and not used elsewhere."""

    network: nn.Module
    config: Distillation


def train(
    model: nn.Module,
    data: LabelledImages,
    config: TrainingConfig,
    *,
    order_seed: int,
    session: Session = Session(),
    pruner: Pruner | None = None,
    teacher: Teacher | None = None,
    progress: Progress = lambda done, total: None,
) -> tuple[str, ...]:
    """Train `model`, which is on the CPU, in place and leave it there in eval mode.

    Returns the devices it was trained on, in words: several if it was resumed on another. Raises BenchError when there
    are fewer images than a batch needs, or the batch does not divide among the session's processes.
    """
    device, team, checkpoint = session.device, session.team, session.checkpoint
    total = total_steps(len(data), config)
    share = team.share_of(config.batch_size)
    # Seeded: every trial draws the same dropout masks.
    with team.at_work(session.order), own_random_numbers(device, seed=0), tuned(device):
        image_size = data.images(np.zeros(1, np.int64), None).shape[1]
        training = _Training(model, image_size, config, total, session, pruner, teacher)
        _begin(training, session)
        batches = load_ahead(data, _batches(len(data), config, order_seed, training.step, share), device)
        model.train()
        with closing(batches), signals_held_back() as stop, training_together(model, team, device) as network:
            for images, labels in batches:
                training.advance(network, images, labels)
                progress(training.step, total)
                # The others go on until the first process has saved.
                if team.leads and (stop or (checkpoint is not None and checkpoint.is_due())):
                    if checkpoint is not None:
                        checkpoint.save(training.state())
                    stop.obey()
    model.eval()
    if config.batchnorm_samples and team.leads:
        reestimate_batchnorm(model, data, samples=config.batchnorm_samples)
    back_from_device(model)
    return tuple(training.devices)


def total_steps(images: int, config: TrainingConfig) -> int:
    """Optimizer steps of a whole run; a last batch that is not full is dropped."""
    if images < config.batch_size:
        raise BenchError(f"{images} training images are fewer than one batch (batch_size = {config.batch_size})")
    return config.epochs * (images // config.batch_size)


def normalize(images: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] to normalized float32 [N, 3, H, W], what the networks take."""
    return _normalized(torch.from_numpy(images), *_statistics(CPU)).contiguous()


def calibration_order(data: Images, samples: int) -> np.ndarray:
    """Positions of the training images to calibrate with, int64 [samples] or all; more begin with the same ones."""
    return np.random.default_rng(0).permutation(len(data))[:samples]


def calibration_batches(data: Images, samples: int, batch_size: int, *, views: int = 1) -> Iterator[Tensor]:
    """Normalized batches of `samples` training images (or all, if fewer), always the same ones in the same order.

    views: of each image; as in evaluation, and then, after all images, augmented in one way after the other.
    """
    chosen = calibration_order(data, samples)
    for view in range(views):
        for batch in np.array_split(chosen, math.ceil(len(chosen) / batch_size)):
            yield normalize(data.images(batch, view or None))


@torch.no_grad()
def reestimate_batchnorm(model: nn.Module, data: LabelledImages, *, samples: int) -> None:
    """Measure BatchNorm's running statistics again, in place: pruned weights no longer produce the old ones."""
    device = next(model.parameters()).device
    with measured_batchnorm(model):
        for batch in calibration_batches(data, samples, batch_size=64):
            model(batch.to(device))


class _Training:
    """What a training has come to: the network, and all else that the next step depends on."""

    def __init__(
        self,
        model: nn.Module,
        image_size: int,
        config: TrainingConfig,
        total: int,
        session: Session,
        pruner: Pruner | None,
        teacher: Teacher | None,
    ) -> None:
        device = session.device
        self._layout = to_device(model, device, image_size)
        if teacher is not None:
            move(teacher.network, device, self._layout)
        self.step = 0
        self.devices = [describe(device, session.team.count)]
        self._model = model
        self._config = config
        self._total = total
        self._device = device
        self._pruner = pruner
        self._teacher = teacher
        self._statistics = _statistics(device)
        self._optimizer = _optimizer(model, config)
        self._precision = low_precision(device) if config.mixed_precision else None
        self._scaler = torch.GradScaler(device.type, enabled=self._precision == torch.float16)

    def advance(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        """One optimizer step on uint8 [n, H, W, 3] and int64 [n]; `network` is the model, or what shares its work."""
        rate, momentum = rate_and_momentum(self._config, self.step, self._total)
        for group in self._optimizer.param_groups:
            group["lr"], group["momentum"] = rate, momentum
        inputs = _normalized(images, *self._statistics).contiguous(memory_format=self._layout)
        with torch.autocast(self._device.type, self._precision, enabled=self._precision is not None):
            outputs = network(inputs)
            if not isinstance(outputs, Tensor):
                raise CellFailedError(
                    f"it returns {type(outputs).__name__} while it is trained, expected logits alone, a tensor: make "
                    "it without auxiliary outputs (aux_logits=False), or return the logits in training too"
                )
            loss = self._loss(outputs.float(), labels, inputs)
            if not loss.requires_grad:
                raise CellFailedError(_NOTHING_TO_TRAIN)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        if self._config.adaptive_clipping is not None:
            self._scaler.unscale_(self._optimizer)
            shorten(self._model.parameters(), self._config.adaptive_clipping)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._pruner is not None:
            self._pruner.step()
        self.step += 1

    def state(self) -> State:
        return {
            "step": self.step,
            "devices": self.devices,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "pruner": self._pruner.state() if self._pruner is not None else None,
            "random": random_state(self._device),
        }

    def restore(self, state: State) -> None:
        self.step = state["step"]
        self.devices = list(dict.fromkeys([*state["devices"], *self.devices]))
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where it was not needed
            self._scaler.load_state_dict(state["scaler"])
        if self._pruner is not None:
            self._pruner.restore(state["pruner"])
        set_random_state(self._device, state["random"])

    def share_teacher(self, team: Team) -> None:
        if self._teacher is not None:
            self._teacher.network.load_state_dict(team.share(self._teacher.network.state_dict()))

    def _loss(self, outputs: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        loss = functional.cross_entropy(outputs, labels, label_smoothing=self._config.label_smoothing)
        if self._teacher is None:
            return loss
        with torch.no_grad():
            taught = self._teacher.network(inputs).float()
        return distillation_loss(loss, outputs, taught, self._teacher.config)


def distillation_loss(loss: Tensor, outputs: Tensor, taught: Tensor, config: Distillation) -> Tensor:
    """`loss` against the labels, mixed with that against the teacher's outputs [N, classes] (Hinton et al. 2015)."""
    softened, target = (functional.log_softmax(values / config.temperature, dim=1) for values in (outputs, taught))
    divergence = functional.kl_div(softened, target, reduction="batchmean", log_target=True)
    return (1 - config.weight) * loss + config.weight * config.temperature**2 * divergence


def _begin(training: _Training, session: Session) -> None:
    """Bring the training to where it starts: from a checkpoint, or as the first process has it."""
    state = session.checkpoint.load() if session.checkpoint is not None else None
    if not session.team.is_alone:
        state = session.team.share(state or training.state())
        training.share_teacher(session.team)
    if state is not None:
        training.restore(state)


def _optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise CellFailedError(_NOTHING_TO_TRAIN)
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if not config.decay_all:
        weights = [parameter for parameter in parameters if parameter.ndim > 1]
        others = [parameter for parameter in parameters if parameter.ndim <= 1]  # BatchNorm's, and biases
        groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )


def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return mean, std


def _normalized(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """float32 [N, 3, H, W], in channels last as the pixels are."""
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255).sub_(mean).div_(std)


def _batches(
    images: int, config: TrainingConfig, order_seed: int, first: int, share: slice
) -> Iterator[tuple[int, np.ndarray]]:
    """(epoch, image numbers) of each step from number `first` on; of each batch the `share` of this process."""
    per_epoch = images // config.batch_size
    for step in range(first, config.epochs * per_epoch):
        epoch, batch = divmod(step, per_epoch)
        if batch == 0 or step == first:
            order = np.random.default_rng((order_seed, epoch)).permutation(images)
        start = batch * config.batch_size
        yield epoch, order[start : start + config.batch_size][share]
