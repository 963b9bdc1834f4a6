"""Sparsities by layer: those that lose least at the stored size that one sparsity for all layers has.

What the network loses is taken as the sum of what each layer loses when it alone is pruned (Cai et al. 2020, ZeroQ).
Under a budget of bits the best choice then lies, for every layer, on the lower convex hull of its (bits, loss) points,
at one slope for all (Shoham and Gersho 1988): hulls are walked down from dense, the cheapest saving first.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from torch import nn

from coreml_prune_bench.models.layers import prunable_layers
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.task import layer_sparsities

Losses = Mapping[str, Mapping[float, float]]
"""By layer and sparsity: what is lost when that layer alone is pruned so far."""

_LEAST_KEPT = 0.6
"""Of the weights that a layer would keep if all were pruned alike: where layers are pruned much further, what each one
loses alone says too little of all together. With a fixed limit of 95 % ResNet50 came out worse than pruned alike."""
_STEP = 0.01
_FLOAT16_BITS = 16
_EXPONENT = 3.0
"""Of loss against sparsity where nothing was measured below: magnitudes are about uniform near zero, so that the square
of what is taken away grows with the third power of its share, and the loss with that square."""
_SMALLEST_LOSS, _LARGEST_LOSS = 1e-9, 1e6
"""So that logarithms are finite."""

_Config = TypeVar("_Config", bound=PruningConfig)


class _Choice(NamedTuple):
    bits: float
    loss: float
    sparsity: float


def allocated(config: _Config, network: Network, model: nn.Module, losses: Losses) -> _Config:
    """`config` with the sparsity of every layer that it prunes spelt out, as large as stored as before."""
    assert config.sparsity is not None, "allocation needs a sparsity, as the config's validation says"
    layers = prunable_layers(model)
    elements = {name: layers[name].weight.numel() for name in layer_sparsities(config, network, model)}
    chosen = allocate(losses, elements, config.sparsity, kept_bits=config.joint_bits or _FLOAT16_BITS)
    return config.model_copy(update={"allocation": "uniform", "layers": tuple(chosen.items())})


def allocate(
    losses: Losses, elements: Mapping[str, int], sparsity: float, *, kept_bits: int = _FLOAT16_BITS
) -> dict[str, float]:
    """A sparsity, from 0 on, for each layer of `elements` (its number of weights), stored in as many bits as
    `sparsity` for all would take, with the least sum of losses. Deterministic.

    kept_bits: of a weight that stays in a pruned layer; each weight of it has a bit in the mask as well.
    """
    budget = sum(_stored_bits(count, sparsity, kept_bits) for count in elements.values())
    highest = 1 - _LEAST_KEPT * (1 - sparsity)
    hulls = {name: _hull(losses[name], count, highest, kept_bits) for name, count in elements.items()}
    steps = [
        ((after.loss - before.loss) / (before.bits - after.bits), name, before, after)
        for name, hull in hulls.items()
        for before, after in pairwise(hull)
    ]
    chosen = {name: hull[0] for name, hull in hulls.items()}
    excess = sum(choice.bits for choice in chosen.values()) - budget
    # Along a hull slopes rise, so that a layer's steps come in their order.
    for _, name, before, after in sorted(steps, key=lambda step: step[0]):
        if excess <= 0:
            break
        saved = min(excess, before.bits - after.bits)
        kept = before.bits - saved
        excess -= saved
        chosen[name] = _Choice(kept, after.loss, _sparsity_of(kept, elements[name], kept_bits))
    return {name: round(choice.sparsity, 4) for name, choice in chosen.items()}


def loss_at(measured: Mapping[float, float], sparsity: float) -> float:
    """The loss between the measured levels, and beyond them: a power of the sparsity from each level to the next."""
    levels = sorted(measured)
    known = np.log(
        np.maximum.accumulate([min(max(measured[level], _SMALLEST_LOSS), _LARGEST_LOSS) for level in levels])
    )
    places = np.log(levels)
    slopes = np.append(_EXPONENT, np.diff(known) / np.diff(places))
    if sparsity == 0:
        return 0.0
    place = math.log(sparsity)
    segment = min(int(np.searchsorted(places, place)), len(levels) - 1)
    return math.exp(known[segment] - slopes[segment] * (places[segment] - place))


def _hull(measured: Mapping[float, float], count: int, highest: float, kept_bits: int) -> list[_Choice]:
    """The lower convex hull of the choices for one layer, from dense on; every step saves bits."""
    levels = [*np.arange(_STEP, highest, _STEP).round(4).tolist(), highest]
    choices = [_Choice(_stored_bits(count, level, kept_bits), loss_at(measured, level), level) for level in levels]
    hull = [_Choice(_FLOAT16_BITS * count, 0.0, 0.0)]
    for choice in choices:
        if choice.bits >= hull[0].bits:  # the mask costs more than the zeros save
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], choice):
            hull.pop()
        hull.append(choice)
    return hull


def _slope(before: _Choice, after: _Choice) -> float:
    return (after.loss - before.loss) / (before.bits - after.bits)


def _stored_bits(count: int, sparsity: float, kept_bits: int) -> float:
    """Of the weights of one layer: dense as Float16, or what stays and a mask."""
    return _FLOAT16_BITS * count if sparsity == 0 else (kept_bits * (1 - sparsity) + 1) * count


def _sparsity_of(bits: float, count: int, kept_bits: int) -> float:
    """The inverse of `_stored_bits` for a layer that is stored sparse; the least where that takes fewer bits anyway."""
    return max(_STEP, 1 - (bits / count - 1) / kept_bits)
