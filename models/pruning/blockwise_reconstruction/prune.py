"""Blockwise reconstruction, ours: each block of a pruned network is fitted to what the dense network's block computes.

SparseGPT chooses which weights go, and that stays. Then, block by block from the input on, the weights that remain are
trained so that the block, fed by the pruned and already fitted blocks before it, gives what the dense block gives when
fed by dense ones. A few hundred unlabelled images do: a block has few weights, and each image has many positions.

What is others': fitting pruned layers to their dense outputs on a small calibration set (AdaPrune, Hubara et al. 2021,
"Accelerated Sparse Neural Training"; optimal for a quadratic loss: OBC, Frantar and Alistarh 2022, and SparseGPT, 2023,
where we start); the block as the unit to fit, from inputs of the compressed network to outputs of the dense one (BRECQ,
Li et al. 2021, which quantizes). What is ours: learning rates in units of each tensor's own size and of the block's
error, so that one setting serves networks and blocks that differ by an order of magnitude; BatchNorm measured again on
the fitted prefix just before each block; augmented views of the images that are fitted to; and images held back, whose
error is told beside that of the others and decides which of a few rates a block is fitted with, if any.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from statistics import fmean
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from coreml_prune_bench.models.checkpoints import State
from coreml_prune_bench.models.conversion import without_metadata
from coreml_prune_bench.models.devices import CPU, describe, to_device
from coreml_prune_bench.models.errors import BenchError, CellFailedError
from coreml_prune_bench.models.layers import names_by_weight
from coreml_prune_bench.models.loading import LabelledImages
from coreml_prune_bench.models.pruning.blockwise_reconstruction.config import ReconstructionConfig
from coreml_prune_bench.models.pruning.post_training import prune as post_training
from coreml_prune_bench.models.pruning.sparse_gpt import prune as sparse_gpt
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.pruning.task import (
    Pruned,
    PruningTask,
    Targets,
    layer_sparsities,
    patterns_of,
    scope_in_words,
)
from coreml_prune_bench.models.training import (
    Progress,
    calibration_order,
    measured_batchnorm,
    normalize,
)

Masks = Mapping[str, Tensor]
"""By the dotted name of a pruned layer: 1 where a weight stays and 0 where it went, in the weight's shape."""

_RUN_BATCH = 32
"""Images that pass a block together where nothing is fitted."""

_POSITIONS = 24 * 14 * 14
_FEWEST_IMAGES = 4
"""A step sees as many images as have this many positions in the block's input, but not fewer than that: more of the
large maps near a network's input cost time and gained nothing."""


@dataclass(frozen=True)
class BlockError:
    """How far a block's output is from the dense one's: mean squared difference over the variance of the dense one.

    fitted: on the images that the block is fitted to; held_back: on the others. Each before and after.
    """

    block: str
    fitted_before: float
    fitted_after: float
    held_back_before: float
    held_back_after: float

    def describe(self) -> str:
        return (
            f"{self.block}: error {self.fitted_before:.4f} -> {self.fitted_after:.4f}, "
            f"held back {self.held_back_before:.4f} -> {self.held_back_after:.4f}"
        )


@dataclass(frozen=True)
class Calibration:
    """What the network is shown: normalized, Float16 [N, 3, H, W].

    The first `plain` are images as evaluation sees them; augmented views of the same ones follow, and then, as
    evaluation sees them, the `held_back` others that are not fitted to.
    """

    images: Tensor
    plain: int
    held_back: int


def prune(config: ReconstructionConfig, task: PruningTask) -> Pruned:
    """Choose the zeros, fit block by block, then convert."""
    if not _weights(task.model):
        raise CellFailedError("no weight of its layers has requires_grad, so that none can be fitted")
    checkpoint, device = task.session.checkpoint, task.session.device
    dense = deepcopy(task.model)
    state = (checkpoint.load() if checkpoint is not None else None) or task.once(lambda: _masked(config, task))
    task.model.load_state_dict(state["model"])
    masks = masks_of(task.model, state["targets"])
    devices = list(dict.fromkeys([*state["devices"], describe(device)]))
    for model in (task.model, dense):
        to_device(model.eval(), device)
    blocks = fit_blocks(
        task.network.sequential(task.model),
        task.network.sequential(dense),
        masks,
        calibration_images(task.training_data(), config),
        config,
        seed=task.trial,
        device=device,
        first=state["stages"],
        progress=task.progress,
    )
    for done, error in blocks:
        task.say(error.describe())
        if checkpoint is not None:
            checkpoint.save(state | {"model": task.model.state_dict(), "stages": done, "devices": devices})
    to_device(task.model, CPU)
    targets, scope = state["targets"], state["scope"]
    return Pruned(config, task.model, task.image_size, targets, scope, tuple(devices), patterns_of(config, targets))


def calibration_images(data: LabelledImages, config: ReconstructionConfig) -> Calibration:
    """The calibration images; those held back are the last of their order, half of them at most.

    Raises BenchError where there are fewer than two.
    """
    if len(data) < 2:
        raise BenchError(f"blockwise reconstruction needs two training images, one to hold back; there are {len(data)}")
    order = calibration_order(data, config.calibration_samples)
    plain = len(order) - min(config.held_back_samples, len(order) // 2)
    shown = [(order[:plain], view or None) for view in range(config.views)] + [(order[plain:], None)]
    batches = [
        normalize(data.images(batch, view)).half()
        for indices, view in shown
        for batch in np.array_split(indices, math.ceil(len(indices) / _RUN_BATCH))
    ]
    return Calibration(torch.cat(batches), plain, len(order) - plain)


def masks_of(model: nn.Module, layers: Iterable[str]) -> Masks:
    """Where the weights of `layers` are not zero now."""
    return {name: (model.get_parameter(f"{name}.weight") != 0).float() for name in layers}


def fit_blocks(
    sparse: nn.Sequential,
    dense: nn.Sequential,
    masks: Masks,
    calibration: Calibration,
    config: ReconstructionConfig,
    *,
    seed: int,
    device: torch.device,
    first: int = 0,
    progress: Progress = lambda done, total: None,
) -> Iterator[tuple[int, BlockError]]:
    """Fit the stages of `sparse`, in place, to those of `dense`, from number `first` on: those before are fitted.

    Both are in eval mode on `device`, and layers have the same names in them as in `masks`. Yields the number of stages
    that are done, and the error, after each that was fitted. What comes before the first zero is left as it is, and so
    is a network without any.
    """
    run = _Runner(device, on_disk=config.activations == "disk")
    pairs = list(zip(sparse.named_children(), dense.children(), strict=True))
    keep = [_masks_in(stage, masks) for (_, stage), _ in pairs]
    begin = next(
        (number for number, own in enumerate(keep) if not all(mask.all() for mask in own.values())), len(pairs)
    )
    to_fit = [number for number, ((_, stage), _) in enumerate(pairs) if number >= begin and _weights(stage)]
    inputs = reference = calibration.images
    for number, ((name, stage), teacher) in enumerate(pairs):
        _check_images_first(name, next(run.parts(teacher, reference[:1])))
        reference = run(teacher, reference)
        if number < begin:
            inputs = reference
            continue
        if number in to_fit and number >= first:
            block = _Block(name, stage, keep[number], inputs, reference, calibration, run)
            steps = config.steps * len(config.learning_rates)
            for step in block.fit(config, (seed, number)):
                progress(steps * to_fit.index(number) + step, steps * len(to_fit))
            inputs, error = block.result()
            yield number + 1, error
        else:
            inputs = run(stage, inputs)


def _check_images_first(stage: str, output: Tensor) -> None:
    """output: of one image."""
    if len(output) != 1:
        raise CellFailedError(
            f"{stage} gives {list(output.shape)} of one image, expected [1, ...]: images are taken apart along "
            "the first dimension; use batch_first=True, or sparse-gpt, post-training or magnitude-pruner"
        )


@dataclass(frozen=True)
class _Runner:
    """Runs modules where nothing is fitted: what they make of Float16 [N, ...], in Float16 on the CPU or on disk."""

    device: torch.device
    on_disk: bool

    @torch.no_grad()
    def __call__(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """All outputs, [N, ...]."""
        outputs = None
        for batch, part in zip(torch.arange(len(inputs)).split(_RUN_BATCH), self.parts(module, inputs), strict=True):
            if outputs is None:
                outputs = self._empty((len(inputs), *part.shape[1:]))
            outputs[batch] = part.half().cpu()
        assert outputs is not None, "there is an image at least"
        return outputs

    @torch.no_grad()
    def parts(self, module: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
        """The outputs, Float32 on the device, of a batch after the other."""
        for batch in inputs.split(_RUN_BATCH):
            yield module(batch.to(self.device).float())

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        if not self.on_disk:
            return torch.empty(shape, dtype=torch.float16)
        with NamedTemporaryFile(prefix="activations-") as file:  # the map outlives the file's name
            return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=torch.float16).view(shape)


class _Block:
    """One stage that is fitted, in place.

    keep: masks of its own weights. inputs, targets: what goes in and should come out for the calibration's images,
    Float16 [N, ...].
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        keep: Masks,
        inputs: Tensor,
        targets: Tensor,
        calibration: Calibration,
        run: _Runner,
    ) -> None:
        self._name = name
        self._module = module
        self._keep = {name: mask.to(run.device) for name, mask in keep.items()}
        self._inputs = inputs
        self._targets = targets
        self._plain = slice(0, calibration.plain)
        self._held_back = slice(len(inputs) - calibration.held_back, None)
        self._run = run
        self._weights = _weights(module)
        with measured_batchnorm(module):
            deque(run.parts(module, inputs[self._plain]), maxlen=0)
        self._before = self._error(self._plain), self._error(self._held_back)

    def fit(self, config: ReconstructionConfig, order_seed: tuple[int, ...]) -> Iterator[int]:
        """Fit the weights that stay, and nothing else; yields the number of steps that are done.

        The block is fitted once with each learning rate. It keeps the weights with which it errs least on the images
        held back: what it is not fitted with if no rate helps.
        """
        unfitted = best = self._copies()
        least = self._before[1]
        variance = _variance(self._targets[self._plain])
        # Zero: a dead block, or a head of zeros: the same for every image, and nothing to fit to.
        for number, rate in enumerate(config.learning_rates if variance else ()):
            self._set(unfitted)
            for step in self._walk(config, rate, variance, np.random.default_rng(order_seed)):
                yield config.steps * number + step
            held_back = self._error(self._held_back)
            if held_back < least:
                best, least = self._copies(), held_back
        self._set(best)

    def result(self) -> tuple[Tensor, BlockError]:
        """What comes out, for the next block, and how far it is from what should."""
        outputs = self._run(self._module, self._inputs)
        after = [relative_error(outputs[part], self._targets[part]) for part in (self._plain, self._held_back)]
        return outputs, BlockError(self._name, self._before[0], after[0], self._before[1], after[1])

    def _walk(
        self, config: ReconstructionConfig, rate: float, variance: float, order: np.random.Generator
    ) -> Iterator[int]:
        # A block that is nearly right needs small steps: the same ones that mend a bad block made a good one worse.
        rate *= math.sqrt(min(self._before[0], 1.0))
        groups = [{"params": [weight], "lr": rate * _size(weight)} for weight in self._weights.values()]
        optimizer = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
        positions = self._inputs[0, 0].numel() if self._inputs.ndim == 4 else 1
        size = min(config.batch_size, max(_FEWEST_IMAGES, _POSITIONS // positions))
        batches = _batches(self._held_back.start, size, order)
        for step, batch in zip(range(config.steps), batches, strict=False):
            inputs, targets = (values[batch].to(self._run.device).float() for values in (self._inputs, self._targets))
            loss = functional.mse_loss(self._module(inputs), targets) / variance
            gradients = torch.autograd.grad(loss, list(self._weights.values()))
            for (name, weight), gradient in zip(self._weights.items(), gradients, strict=True):
                weight.grad = gradient * self._keep[name] if name in self._keep else gradient
            optimizer.step()
            schedule.step()
            yield step + 1
        optimizer.zero_grad()

    def _copies(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def _set(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(weights[name])

    def _error(self, part: slice) -> float:
        return relative_error(self._run(self._module, self._inputs[part]), self._targets[part])


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Mean squared difference over the variance of what is expected, both Float16 [N, ...]."""
    difference = fmean(float(functional.mse_loss(f.float(), e.float())) for f, e in zip(found, expected, strict=True))
    variance = _variance(expected)
    if variance == 0:
        return math.inf if difference else 0.0
    return difference / variance


def _variance(values: Tensor) -> float:
    # One image after the other here and above: all of them in Float32 may be too much for the memory.
    mean = fmean(float(value.float().mean()) for value in values)
    return fmean(float((value.float() - mean).square().mean()) for value in values)


def coremltools_yaml(
    config: ReconstructionConfig, targets: Targets, training_images: int
) -> tuple[str, dict[str, Any]]:
    """What to know of the file, and what is in it: the zeros alone."""
    start = config.start()
    started = sparse_gpt if isinstance(start, SparseGPTConfig) else post_training
    note, content = started.coremltools_yaml(start, targets, training_images)
    return f"The zeros alone: Core ML Tools has nothing that fits the blocks afterwards. {note}", content


def _masked(config: ReconstructionConfig, task: PruningTask) -> State:
    """The network with its zeros, before any block is fitted."""
    start = config.start()
    if isinstance(start, SparseGPTConfig):
        targets, scope = sparse_gpt.sparsify(start, task)
    else:
        targets, scope = _smallest_zeroed(config, task)
    # Copies: the network's own are fitted now.
    masked = {name: value.clone() for name, value in without_metadata(task.model).state_dict().items()}
    return {"targets": targets, "scope": scope, "model": masked, "stages": 0, "devices": []}


def _smallest_zeroed(config: ReconstructionConfig, task: PruningTask) -> tuple[Targets, str]:
    targets = layer_sparsities(config, task.network, task.model)
    for name, sparsity in targets.items():
        assert sparsity is not None, "where there is no Core ML Tools config, every layer has a sparsity"
        post_training.break_ties(task.model.get_parameter(f"{name}.weight"), sparsity)
    return targets, scope_in_words(config, task.network, task.model)


def _masks_in(stage: nn.Module, masks: Masks) -> Masks:
    """Those of the stage's weights, by the names of `_weights`: a weight that layers share has the first one's."""
    return {f"{names[0]}.weight": masks[name] for names in names_by_weight(stage) for name in names if name in masks}


def _weights(stage: nn.Module) -> dict[str, Tensor]:
    """Those of convolutions and linear layers, by name, that are trained; of layers that share one, the first's."""
    weights = {f"{names[0]}.weight": stage.get_parameter(f"{names[0]}.weight") for names in names_by_weight(stage)}
    return {name: weight for name, weight in weights.items() if weight.requires_grad}


def _size(weight: Tensor) -> float:
    """The root mean square of the weights that stay, the unit of their learning rate."""
    kept = weight[weight != 0]
    return float(kept.square().mean().sqrt()) if len(kept) else 0.0


def _batches(images: int, size: int, order: np.random.Generator) -> Iterator[Tensor]:
    """Image numbers, each once before any comes again; what does not fill a batch is left out of its round."""
    size = min(size, images)
    while True:
        shuffled = torch.from_numpy(order.permutation(images))
        yield from (shuffled[start : start + size] for start in range(0, images - size + 1, size))
