"""What pruning one layer alone costs a network: measured on a few images, with the dense network as the reference.

The error is the Kullback-Leibler divergence of the pruned network's class probabilities from the dense one's, in nats,
mean over images: it needs no labels and, unlike top-1, tells layers apart on a few dozen images. Cai et al. (2020,
ZeroQ) measure a layer's sensitivity to quantization so, and add the layers up; as models.pruning.allocation does.

BatchNorm normalizes by what passes it here, of the pruned network and of the dense one that it is compared with: a
pruned layer shifts and shrinks what comes behind it, and whoever prunes with images has BatchNorm follow.

A network is walked once. What comes out of each stage of the dense network is kept for the next one, and what comes
before a layer in its own stage is run once for all levels: a pruned layer costs what depends on it. Levels are not run
as one batch: each normalizes by statistics of its own, and arithmetic costs the same.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coreml_prune_bench.models.devices import CPU, exact
from coreml_prune_bench.models.errors import CellFailedError
from coreml_prune_bench.models.layers import PrunableLayer, prunable_layers, stage_names
from coreml_prune_bench.models.layout import back_from_device, to_device
from coreml_prune_bench.models.memory import kept_memory
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning.post_training.prune import by_magnitude, zeros_of
from coreml_prune_bench.models.stages import split_at

LEVELS = (0.5, 0.75, 0.9)
SAMPLES = 32
BATCH_SIZE = 32
"""Images whose statistics BatchNorm normalizes by."""


@dataclass(frozen=True)
class Effect:
    """One layer pruned to `sparsity`. divergence: in nats. top1: a fraction."""

    sparsity: float
    divergence: float
    top1: float


@dataclass(frozen=True)
class LayerEffects:
    """What pruning one layer does, the least sparse first. elements: its number of weights."""

    layer: str
    elements: int
    effects: tuple[Effect, ...]


@torch.no_grad()
def dense_classes(model: nn.Module, batches: Sequence[Tensor], *, device: torch.device = CPU) -> Tensor:
    """What the network itself takes the images for, normalized [n, 3, H, W] a batch: int64 [N]."""
    with _prepared(model, batches[0].shape[-1], device) as laid_out:
        return torch.cat([model(laid_out(batch)).argmax(1).cpu() for batch in batches])


@torch.no_grad()
def layer_effects(
    network: Network,
    model: nn.Module,
    batches: Sequence[Tensor],
    labels: Tensor,
    levels: Sequence[float],
    *,
    device: torch.device = CPU,
    known: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[LayerEffects]:
    """The effects of each layer that can be pruned, those `known` left out, in the order in which images pass them.

    batches: normalized [n, 3, H, W]; their activations are kept, in Float32, for one stage at a time.
    labels: int64 [N]. Of a layer the smallest weights are zeroed, as data-free pruning does. `model` is on the CPU, and
    left as it was.
    """
    levels = sorted(levels)
    layers = prunable_layers(model)
    with _prepared(model, batches[0].shape[-1], device) as laid_out:
        stages = _stages(network, model)
        inputs = [laid_out(batch) for batch in batches]
        reference = torch.cat([_logits(stages, batch) for batch in inputs]).log_softmax(1)  # [N, classes]
        seen = set(known)
        steps, total = len(levels) * len(inputs), len(layers) * len(levels) * len(inputs)
        for number, stage in enumerate(stages):
            within = set(stage.modules())
            for name, layer in layers.items():
                if layer not in within or name in seen:
                    continue
                seen.add(name)
                outputs: list[list[Tensor]] = [[] for _ in levels]
                pruned = _with_pruned(layer, levels, stages[number:], inputs)
                for step, (level, logits) in enumerate(pruned, start=1):
                    outputs[level].append(logits)
                    progress((len(seen) - 1) * steps + step, total)
                effects = (
                    Effect(level, *_compared(torch.cat(found), reference, labels))
                    for level, found in zip(levels, outputs, strict=True)
                )
                yield LayerEffects(name, layer.weight.numel(), tuple(effects))
            inputs = [stage(batch) for batch in inputs]


@contextmanager
def _prepared(model: nn.Module, image_size: int, device: torch.device) -> Iterator[Callable[[Tensor], Tensor]]:
    """Inside, the network is where and as it runs fastest; gives what puts a batch of images there."""
    layout = to_device(model.eval(), device, image_size)
    try:
        with kept_memory(), exact(device), _batch_statistics(model):
            yield lambda batch: batch.to(device, memory_format=layout)
    finally:
        back_from_device(model)


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm normalizes by the batch that passes it and remembers nothing of it; all else stays in eval mode."""
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.train()
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
            layer.track_running_stats = True


def _stages(network: Network, model: nn.Module) -> list[nn.Module]:
    """The network as modules to run one after the other; as one where it has no stages, which only takes longer."""
    try:
        view = network.sequential(model)
    except CellFailedError:
        return [model]
    return [view.get_submodule(name) for name in stage_names(view)]


def _with_pruned(
    layer: PrunableLayer, levels: Sequence[float], stages: Sequence[nn.Module], inputs: Sequence[Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """Number of the level, the least sparse first, and logits [n, classes] of the stages with `layer` pruned so far.

    All levels of a batch come before the next batch's: what they share is kept for one batch at a time.
    """
    dense = layer.weight.flatten().clone()  # [C_out x C_in x kH x kW]
    order = by_magnitude(layer.weight)
    first, *later = stages
    before, rest = split_at(first, [layer]) or (None, first)
    try:
        for batch in inputs:
            values = (batch,) if before is None else before(batch)
            pruned = dense.clone()
            for number, level in enumerate(levels):
                pruned[order[: zeros_of(layer.weight, level)]] = 0
                layer.weight.copy_(pruned.view(layer.weight.shape))
                yield number, _logits(later, rest(*values))
            layer.weight.copy_(dense.view(layer.weight.shape))
    finally:
        layer.weight.copy_(dense.view(layer.weight.shape))


def _logits(stages: Sequence[nn.Module], values: Tensor) -> Tensor:
    """[n, classes] on the CPU, in Float64: of a small divergence little is left in Float32."""
    for stage in stages:
        values = stage(values)
    return values.cpu().double()


def _compared(outputs: Tensor, reference: Tensor, labels: Tensor) -> tuple[float, float]:
    """Divergence in nats, infinite where the outputs are no numbers; and top-1."""
    divergence = float((reference.exp() * (reference - outputs.log_softmax(1))).sum(1).mean())
    right = float((outputs.argmax(1) == labels).float().mean())
    return (max(divergence, 0.0) if math.isfinite(divergence) else math.inf), right
