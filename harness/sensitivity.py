"""The sensitivity of a network's layers to pruning: measured once for each network and its images, kept, told, drawn.

Kept under the hash of what it depends on. Layers that were measured before a run was stopped are not measured again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from tabulate import tabulate

from harness.charts import DotRow, Drawing, beside, dots, legend
from harness.keys import code_version, key_of
from harness.store import Store, write_atomically

if TYPE_CHECKING:
    from torch import nn

    from harness.cells import Subject
    from harness.training_images import TrainingImages

_CODE = (
    "models/pruning/sensitivity.py",
    "models/pruning/post_training.py",
    "models/layers.py",
    "models/stages.py",
)

_LEAST_DRAWN = 1e-4
"""Nats; what is less stands there in a chart."""


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


def sensitivity_key(subject: "Subject", samples: int, levels: Sequence[float]) -> str:
    """The hash of everything that a measurement depends on."""
    return key_of(
        {
            "dense": subject.dense_key,
            "samples": samples,
            "levels": sorted(levels),
            "code": code_version(*_CODE),
            **subject.train_inputs,
        }
    )


def measure(
    subject: "Subject",
    model: "nn.Module",
    images: "TrainingImages",
    samples: int,
    levels: Sequence[float],
    *,
    unfinished: Path,
    progress: Callable[[int, int], None],
) -> Sensitivity:
    """Prune the layers of the dense `model` one at a time, over `samples` of the training images.

    unfinished: the file in which what is measured is kept until all is; it belongs to this measurement alone.
    """
    import torch

    from models.pruning.sensitivity import BATCH_SIZE, dense_top1, layer_effects
    from models.training import calibration_batches, calibration_order

    batches = list(calibration_batches(images, samples, BATCH_SIZE))
    labels = torch.from_numpy(images.labels(calibration_order(images, samples)).astype(np.int64))
    found = _read(unfinished) or Sensitivity(
        network=subject.network.name,
        title=subject.network.title,
        data=subject.data.spec,
        split=subject.data.train.name if subject.data.train else "",
        images=len(labels),
        dense_top1=dense_top1(model, batches, labels),
        layers=(),
    )
    known = {layer.layer for layer in found.layers}
    for layer in layer_effects(subject.network, model, batches, labels, levels, known=known, progress=progress):
        effects = tuple(
            Effect(sparsity=e.sparsity, divergence=e.divergence if math.isfinite(e.divergence) else None, top1=e.top1)
            for e in layer.effects
        )
        measured = LayerSensitivity(layer=layer.layer, elements=layer.elements, effects=effects)
        found = found.model_copy(update={"layers": (*found.layers, measured)})
        write_atomically(unfinished, found.model_dump_json())
    return found


def kept_sensitivities(results: Path) -> list[Sensitivity]:
    """Those that a results folder holds, of each network and its images the newest."""
    found: dict[tuple[str, str], Sensitivity] = {}
    for made in Store(results).manifests():
        if made.keys() == Sensitivity.model_fields.keys():
            one = Sensitivity.model_validate(made)
            if one.layers:
                found[one.network, one.data] = one
    return list(found.values())


def table(sensitivity: Sensitivity) -> str:
    """`rows`, to be read."""
    body = tabulate(rows(sensitivity), headers="keys", tablefmt="github", disable_numparse=True)
    return f"{caption(sensitivity)}\n\n{body}"


def rows(sensitivity: Sensitivity) -> list[dict[str, str]]:
    """A row a layer: what pruning it alone to each level does."""
    return [
        {"Layer": layer.layer, "Weights": f"{layer.elements:,}"}
        | {f"{100 * e.sparsity:g} %: error": _error(e.divergence) for e in layer.effects}
        | {f"{100 * e.sparsity:g} %: top-1": f"{100 * e.top1:.1f}" for e in layer.effects}
        for layer in sensitivity.layers
    ]


def caption(sensitivity: Sensitivity) -> str:
    return (
        f"{sensitivity.title}, each layer pruned alone by magnitude, BatchNorm measured anew; {sensitivity.images:,} "
        f"images of {sensitivity.data} ({sensitivity.split}). Error: divergence from the dense network, in nats. Top-1 "
        f"in %, dense {100 * sensitivity.dense_top1:.1f}; one image is {100 / sensitivity.images:.1f}."
    )


def chart(sensitivity: Sensitivity) -> Drawing:
    """Error and top-1 beside each other, with what the marks mean."""
    key, *both = panels(sensitivity)
    panel = beside(both, columns=2)
    return beside([replace(key, width=panel.width), panel], columns=1)


def panels(sensitivity: Sensitivity) -> list[Drawing]:
    """What the marks mean, error, and top-1: a row a layer, a mark a level."""
    levels = [f"{100 * effect.sparsity:g} %" for effect in sensitivity.layers[0].effects]

    def dot_rows(value: Callable[[Effect], float | None]) -> list[DotRow]:
        return [
            DotRow(
                layer.layer,
                tuple(value(e) for e in layer.effects),
                tuple(
                    (f"{layer.layer} at {name}", *_details(e)) for name, e in zip(levels, layer.effects, strict=True)
                ),
            )
            for layer in sensitivity.layers
        ]

    errors = dot_rows(lambda e: None if e.divergence is None else max(e.divergence, _LEAST_DRAWN))
    error = dots(f"{sensitivity.title}: error", errors, "divergence from dense, nats", logarithmic=True)
    top1 = dots("Top-1", dot_rows(lambda e: 100 * e.top1), f"%, dense {100 * sensitivity.dense_top1:.1f}")
    return [legend([f"layer {level} sparse" for level in levels], error.width), error, top1]


def _details(effect: Effect) -> tuple[str, str]:
    return f"error {_error(effect.divergence)}", f"top-1 {100 * effect.top1:.1f} %"


def _error(divergence: float | None) -> str:
    return "-" if divergence is None else f"{divergence:.4f}"


def _read(unfinished: Path) -> Sensitivity | None:
    """None where there is nothing, or nothing whole."""
    try:
        return Sensitivity.model_validate_json(unfinished.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
