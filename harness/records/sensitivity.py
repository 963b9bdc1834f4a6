"""What a measurement of a network's sensitivity says, layer by layer."""

import math
from typing import Self

from pydantic import ConfigDict, model_validator

from coreml_prune_bench.records.quantities import Count, Fraction, PositiveCount
from coreml_prune_bench.records.schemas import Frozen

SYNTHETIC = "synthetic"
"""The split of a measurement on images that nobody took."""


class _Data(Frozen):
    model_config = ConfigDict(extra="forbid")


class Effect(_Data):
    """One layer pruned to `sparsity`. divergence: in nats; None: the outputs are no numbers. top1: a fraction."""

    sparsity: Fraction
    divergence: float | None
    top1: Fraction


class LayerSensitivity(_Data):
    """The effects of pruning one layer alone, the least sparse first. elements: its number of weights."""

    layer: str
    elements: Count
    effects: tuple[Effect, ...]


class Sensitivity(_Data):
    """A network's layers in the order in which images pass them. dense_top1: a fraction of `images`.

    devices: those it was measured on, in words.
    """

    network: str
    title: str
    data: str
    split: str
    images: PositiveCount
    dense_top1: Fraction
    layers: tuple[LayerSensitivity, ...]
    devices: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_the_same_effects_of_each_layer(self) -> Self:
        if len({len(layer.effects) for layer in self.layers}) > 1:
            raise ValueError("layers with different numbers of levels")
        return self

    def losses(self) -> dict[str, dict[float, float]]:
        """By layer and sparsity, as an allocation takes them."""
        return {
            layer.layer: {e.sparsity: math.inf if e.divergence is None else e.divergence for e in layer.effects}
            for layer in self.layers
        }
