"""Measuring the sensitivity of a network's layers to pruning, once for each network and its images.

Kept under the hash of what it depends on. Layers that were measured before a run was stopped are not measured again.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.core.keys import code_version, key_of, package_versions
from coreml_prune_bench.records.sensitivity import SYNTHETIC, Effect, LayerSensitivity, Sensitivity

if TYPE_CHECKING:
    import torch
    from torch import nn

    from coreml_prune_bench.bench.cells import Subject
    from coreml_prune_bench.models.loading import Images

SENSITIVITY_CODE = ("bench.sensitivity",)
"""The entry points of measuring sensitivities."""
SYNTHETIC_CODE = ("models.synthetic_images",)
"""What draws synthetic images."""


def synthetic_inputs() -> dict[str, Any]:
    """What synthetic images depend on: the pixels are Pillow's."""
    return {"synthetic": code_version(*SYNTHETIC_CODE), "packages": package_versions("numpy", "pillow")}


def sensitivity_key(subject: "Subject", samples: int, levels: Sequence[float], *, synthetic: bool = False) -> str:
    """The hash of everything that a measurement depends on. synthetic: on such images, not on those of training."""
    return key_of(
        {
            "dense": subject.dense_key,
            "samples": samples,
            "levels": sorted(levels),
            "code": code_version(*SENSITIVITY_CODE),
            **(synthetic_inputs() if synthetic else subject.train_inputs),
        }
    )


def measure(
    subject: "Subject",
    model: "nn.Module",
    images: "Images",
    samples: int,
    levels: Sequence[float],
    *,
    device: "torch.device",
    unfinished: Path,
    progress: Callable[[int, int], None],
) -> Sensitivity:
    """Prune the layers of the dense `model` one at a time, over `samples` of the images.

    Synthetic images have no labels: as their classes count those that the dense network gives them.
    device: where it computes; it is no part of the key, as that of a training is not.
    unfinished: the file in which what is measured is kept until all is; it belongs to this measurement alone.
    """
    import torch

    from coreml_prune_bench.models.devices import describe
    from coreml_prune_bench.models.loading import LabelledImages
    from coreml_prune_bench.models.pruning.sensitivity import BATCH_SIZE, dense_classes, layer_effects
    from coreml_prune_bench.models.training import calibration_batches, calibration_order

    batches = list(calibration_batches(images, samples, BATCH_SIZE))
    classes = dense_classes(model, batches, device=device)
    labels, split = classes, SYNTHETIC
    if isinstance(images, LabelledImages):
        labels = torch.from_numpy(images.labels(calibration_order(images, samples)).astype(np.int64))
        split = subject.data.train.name if subject.data.train else ""
    found = _read(unfinished) or Sensitivity(
        network=subject.network.name,
        title=subject.network.title,
        data=subject.data.spec,
        split=split,
        images=len(labels),
        dense_top1=float((classes == labels).float().mean()),
        layers=(),
    )
    found = found.model_copy(update={"devices": tuple(dict.fromkeys([*found.devices, describe(device)]))})
    known = {layer.layer for layer in found.layers}
    measured_layers = layer_effects(
        subject.network, model, batches, labels, levels, device=device, known=known, progress=progress
    )
    for layer in measured_layers:
        effects = tuple(
            Effect(sparsity=e.sparsity, divergence=e.divergence if math.isfinite(e.divergence) else None, top1=e.top1)
            for e in layer.effects
        )
        measured = LayerSensitivity(layer=layer.layer, elements=layer.elements, effects=effects)
        found = found.model_copy(update={"layers": (*found.layers, measured)})
        write_atomically(unfinished, found.model_dump_json())
    return found


def _read(unfinished: Path) -> Sensitivity | None:
    """None where there is nothing, or nothing whole."""
    try:
        return Sensitivity.model_validate_json(unfinished.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
