"""What a measurement of a network's sensitivity says, layer by layer."""

import math

from pydantic import BaseModel, ConfigDict


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Effect(_Data):
    """One layer pruned to `sparsity`. divergence: in nats; None: the outputs are no numbers. top1: a fraction."""

    sparsity: float
    divergence: float | None
    top1: float


class LayerSensitivity(_Data):
    """The effects of pruning one layer alone, the least sparse first. elements: its number of weights."""

    layer: str
    elements: int
    effects: tuple[Effect, ...]


class Sensitivity(_Data):
    """A network's layers in the order in which images pass them. dense_top1: a fraction of `images`."""

    network: str
    title: str
    data: str
    split: str
    images: int
    dense_top1: float
    layers: tuple[LayerSensitivity, ...]

    def losses(self) -> dict[str, dict[float, float]]:
        """By layer and sparsity, as an allocation takes them."""
        return {
            layer.layer: {e.sparsity: math.inf if e.divergence is None else e.divergence for e in layer.effects}
            for layer in self.layers
        }
