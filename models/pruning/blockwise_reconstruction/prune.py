"""Blockwise reconstruction, ours: each block of a pruned network is fitted to what the dense network's block computes.

SparseGPT chooses which weights go, and that stays. Then, block by block from the input on, the weights that remain are
trained so that the block, fed by the pruned and already fitted blocks before it, gives what the dense block gives when
fed by dense ones. A few hundred unlabelled images do: a block has few weights, and each image has many positions.

What is others': fitting pruned layers to their dense outputs on a small calibration set (AdaPrune, Hubara et al. 2021,
"Accelerated Sparse Neural Training"; optimal for a quadratic loss: OBC, Frantar and Alistarh 2022, and SparseGPT, 2023,
where we start); the block as the unit to fit, from inputs of the compressed network to outputs of the dense one (BRECQ,
Li et al. 2021, which quantizes). What is ours: learning rates in units of each tensor's own size and of the block's
error, so that one setting serves networks and blocks that differ by an order of magnitude; BatchNorm's statistics,
changed as they change on the fitted prefix, just before each block; augmented views of the images that are fitted to;
and images held back, whose error is told beside that of the others and decides which of a few rates a block is fitted
with, if any.
"""

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coreml_prune_bench.models.batchnorm_statistics import carried_over_batchnorm
from coreml_prune_bench.models.checkpoints import State
from coreml_prune_bench.models.conversion import without_metadata
from coreml_prune_bench.models.devices import describe
from coreml_prune_bench.models.errors import BenchError, CellFailedError
from coreml_prune_bench.models.layers import names_by_weight
from coreml_prune_bench.models.layout import back_from_device, move, to_device
from coreml_prune_bench.models.loading import Images
from coreml_prune_bench.models.pruning.blockwise_reconstruction.block import (
    RUN_BATCH,
    Block,
    BlockError,
    Calibration,
    Masks,
    Runner,
    fits_in_bfloat16,
    weights_of,
)
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
    normalize,
)


def prune(config: ReconstructionConfig, task: PruningTask) -> Pruned:
    """Choose the zeros and fit block by block, in one round or several, each sparser; then convert."""
    if not weights_of(task.model):
        raise CellFailedError("no weight of its layers has requires_grad, so that none can be fitted")
    checkpoint, device = task.session.checkpoint, task.session.device
    dense = deepcopy(task.model).eval()
    head = task.head if config.class_rows else ()
    rounds = config.in_rounds()
    state = checkpoint.load() if checkpoint is not None else None
    if state is None:  # what the trials have in common
        state = task.once(lambda: _masked(rounds[0], task, dense, head) | {"round": 0, "devices": []})
    task.model.load_state_dict(state["model"])
    calibration = calibration_images(task.calibration_data(), config)
    in_bfloat16 = config.mixed_precision and fits_in_bfloat16(dense, device)
    device_name = f"{describe(device)}{' in bfloat16' if in_bfloat16 else ''}"
    devices = list(dict.fromkeys([*state["devices"], device_name]))
    for number, part in enumerate(rounds):
        if number < state["round"]:
            continue
        if number > state["round"]:
            task.say(f"{_round(number, len(rounds))}choosing which weights go")
            quiet = replace(task, progress=lambda done, total: None)
            state = _masked(part, quiet, dense, head) | {"round": number}
        move(dense, device, to_device(task.model.eval(), device, task.image_size))
        blocks = fit_blocks(
            task.network.sequential(task.model),
            task.network.sequential(dense),
            masks_of(task.model, state["targets"]),
            calibration,
            part,
            head=head,
            seed=(task.trial, number) if number else (task.trial,),
            device=device,
            in_bfloat16=in_bfloat16,
            first=state["stages"],
            progress=_share_of(task.progress, [one.steps for one in rounds], number),
        )
        for done, error in blocks:
            task.say(f"{_round(number, len(rounds))}{error.describe()}")
            if checkpoint is not None:
                checkpoint.save(state | {"model": task.model.state_dict(), "stages": done, "devices": devices})
        back_from_device(task.model)
    targets, scope = state["targets"], state["scope"]
    return Pruned(config, task.model, task.image_size, targets, scope, tuple(devices), patterns_of(config, targets))


def _round(number: int, rounds: int) -> str:
    return f"round {number + 1} of {rounds}, " if rounds > 1 else ""


def _share_of(progress: Progress, steps: Sequence[int], number: int) -> Progress:
    """The progress of round `number`, which has its part of all `steps`."""

    def within(done: int, total: int) -> None:
        unit = total // steps[number]
        progress(sum(steps[:number]) * unit + done, sum(steps) * unit)

    return within


def calibration_images(data: Images, config: ReconstructionConfig) -> Calibration:
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
        for batch in np.array_split(indices, math.ceil(len(indices) / RUN_BATCH))
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
    head: Collection[str] = (),
    seed: tuple[int, ...],
    device: torch.device,
    in_bfloat16: bool = False,
    first: int = 0,
    progress: Progress = lambda done, total: None,
) -> Iterator[tuple[int, BlockError]]:
    """Fit the stages of `sparse`, in place, to those of `dense`, from number `first` on: those before are fitted.

    Both are in eval mode on `device`, and layers have the same names in them as in `masks`. head: those that give the
    classes. in_bfloat16: what convolutions and linear layers compute in, forward and back; weights stay in Float32.
    Yields the number of stages that are done, and the error, after each that was fitted. What comes before the first
    zero is left as it is, and so is a network without any.
    """
    run = Runner(device, on_disk=config.activations == "disk")
    pairs = list(zip(sparse.named_children(), dense.children(), strict=True))
    keep = [_masks_in(stage, masks) for (_, stage), _ in pairs]
    begin = next(
        (number for number, own in enumerate(keep) if not all(mask.all() for mask in own.values())), len(pairs)
    )
    heads = {f"{name}.weight" for name in head}
    to_fit = [number for number, ((_, stage), _) in enumerate(pairs) if number >= begin and weights_of(stage)]
    inputs = reference = calibration.images
    for number, ((name, stage), teacher) in enumerate(pairs):
        _check_images_first(name, next(run.parts(teacher, reference[:1])))
        is_fitted = number in to_fit and number >= first
        if is_fitted:
            _carry_over_batchnorm(stage, teacher, inputs[: calibration.plain], reference[: calibration.plain], run)
        reference = run(teacher, reference)
        if number < begin:
            inputs = reference
            continue
        if is_fitted:
            rows = {weight: teacher.get_parameter(weight).detach() for weight in keep[number] if weight in heads}
            block = Block(name, stage, keep[number], inputs, reference, calibration, run, class_rows=rows)
            steps = config.steps * len(config.learning_rates)
            for step in block.fit(config, (*seed, number), in_bfloat16=in_bfloat16):
                progress(steps * to_fit.index(number) + step, steps * len(to_fit))
            inputs, error = block.result()
            yield number + 1, error
        else:
            inputs = run(stage, inputs)


def _carry_over_batchnorm(stage: nn.Module, teacher: nn.Module, inputs: Tensor, reference: Tensor, run: Runner) -> None:
    """What comes into the stage has changed, and so have its weights."""
    with carried_over_batchnorm(stage, teacher):
        deque(run.parts(stage, inputs), maxlen=0)
        deque(run.parts(teacher, reference), maxlen=0)


def _check_images_first(stage: str, output: Tensor) -> None:
    """output: of one image."""
    if len(output) != 1:
        raise CellFailedError(
            f"{stage} gives {list(output.shape)} of one image, expected [1, ...]: images are taken apart along "
            "the first dimension; use batch_first=True, or sparse-gpt, post-training or magnitude-pruner"
        )


def coremltools_yaml(
    config: ReconstructionConfig, targets: Targets, training_images: int
) -> tuple[str, dict[str, Any]]:
    """What to know of the file, and what is in it: the sparsities alone."""
    start = config.start()
    started = sparse_gpt if isinstance(start, SparseGPTConfig) else post_training
    note, content = started.coremltools_yaml(start, targets, training_images)
    rounds = "" if len(config.in_rounds()) == 1 else " and in rounds, which choose other zeros"
    return f"The sparsities alone: Core ML Tools has nothing that fits the blocks afterwards{rounds}. {note}", content


def _masked(config: ReconstructionConfig, task: PruningTask, dense: nn.Module, head: Collection[str]) -> State:
    """The network with the zeros of a round, before any block is fitted."""
    # Views take their time, and change which zeros are best in the head alone, which sees a number an image and input.
    pruned = layer_sparsities(config, task.network, task.model) if config.coremltools is None else {}
    start = config.start(views=config.views if any(name in pruned for name in head) else 1)
    if isinstance(start, SparseGPTConfig):
        targets, scope = sparse_gpt.sparsify(start, task, dense)
    else:
        targets, scope = _smallest_zeroed(config, task)
    # Copies: the network's own are fitted now.
    masked = {name: value.clone() for name, value in without_metadata(task.model).state_dict().items()}
    return {"targets": targets, "scope": scope, "model": masked, "stages": 0}


def _smallest_zeroed(config: ReconstructionConfig, task: PruningTask) -> tuple[Targets, str]:
    targets = layer_sparsities(config, task.network, task.model)
    for name, sparsity in targets.items():
        assert sparsity is not None, "where there is no Core ML Tools config, every layer has a sparsity"
        post_training.break_ties(task.model.get_parameter(f"{name}.weight"), sparsity)
    return targets, scope_in_words(config, task.network, task.model)


def _masks_in(stage: nn.Module, masks: Masks) -> Masks:
    """Those of the stage's weights, by the names of `_weights`: a weight that layers share has the first one's."""
    return {f"{names[0]}.weight": masks[name] for names in names_by_weight(stage) for name in names if name in masks}
