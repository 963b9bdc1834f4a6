"""What pruning one layer alone costs a network: measured on a few images, with the dense network as the reference.

The error is the Kullback-Leibler divergence of the pruned network's class probabilities from the dense one's, in nats,
mean over images: it needs no labels and, unlike top-1, tells layers apart on a few dozen images. Cai et al. (2020,
ZeroQ) measure a layer's sensitivity to quantization so, and add the layers up; as models.pruning.allocation does.

BatchNorm normalizes by what passes it here, of the pruned network and of the dense one that it is compared with: a
pruned layer shifts and shrinks what comes behind it, and whoever prunes with images measures BatchNorm again.

A network is walked once. What comes out of each stage of the dense network is kept for the next one, so that a pruned
layer costs its own stage and those behind it.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coreml_prune_bench.models.errors import CellFailedError
from coreml_prune_bench.models.layers import PrunableLayer, prunable_layers, stage_names
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning.post_training.prune import break_ties

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
def dense_top1(model: nn.Module, batches: Sequence[Tensor], labels: Tensor) -> float:
    """The fraction of images, normalized [n, 3, H, W] a batch, that the network itself gets right."""
    with _batch_statistics(model.eval()):
        classes = torch.cat([model(batch).argmax(1) for batch in batches])
    return float((classes == labels).float().mean())


@torch.no_grad()
def layer_effects(
    network: Network,
    model: nn.Module,
    batches: Sequence[Tensor],
    labels: Tensor,
    levels: Sequence[float],
    *,
    known: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[LayerEffects]:
    """The effects of each layer that can be pruned, those `known` left out, in the order in which images pass them.

    batches: normalized [n, 3, H, W]; their activations are kept, in Float32, for one stage at a time.
    labels: int64 [N]. Of a layer the smallest weights are zeroed, as data-free pruning does. `model` is left as it was.
    """
    stages = _stages(network, model.eval())
    layers = prunable_layers(model)
    with _batch_statistics(model):
        reference = torch.cat([_run(stages, batch) for batch in batches]).log_softmax(1)  # [N, classes]
        inputs = list(batches)
        seen = set(known)
        total = len(layers) * len(levels)
        for number, stage in enumerate(stages):
            within = set(stage.modules())
            for name, layer in layers.items():
                if layer not in within or name in seen:
                    continue
                seen.add(name)
                effects = []
                for level in sorted(levels):
                    outputs = _with_pruned(layer, level, stages[number:], inputs)
                    effects.append(Effect(level, *_compared(outputs, reference, labels)))
                    progress((len(seen) - 1) * len(levels) + len(effects), total)
                yield LayerEffects(name, layer.weight.numel(), tuple(effects))
            inputs = [stage(batch) for batch in inputs]


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


def _with_pruned(layer: PrunableLayer, level: float, stages: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Tensor:
    """Logits [N, classes] of the stages with `layer` pruned to `level`."""
    dense = layer.weight.clone()
    try:
        break_ties(layer.weight, level)
        return torch.cat([_run(stages, batch) for batch in inputs])
    finally:
        layer.weight.copy_(dense)


def _run(stages: Sequence[nn.Module], values: Tensor) -> Tensor:
    for stage in stages:
        values = stage(values)
    return values


def _compared(outputs: Tensor, reference: Tensor, labels: Tensor) -> tuple[float, float]:
    """Divergence in nats, infinite where the outputs are no numbers; and top-1."""
    divergence = float((reference.exp() * (reference - outputs.log_softmax(1))).sum(1).mean())
    right = float((outputs.argmax(1) == labels).float().mean())
    return (max(divergence, 0.0) if math.isfinite(divergence) else math.inf), right
