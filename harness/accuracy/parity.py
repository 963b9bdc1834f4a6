"""Core ML beside the portable runtime, image by image: how a Mac vouches for accuracies measured elsewhere."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ConfigDict

from coreml_prune_bench.accuracy.class_labels import ClassMap
from coreml_prune_bench.accuracy.evaluate import Classifier
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.data import Split, iterate
from coreml_prune_bench.records.accuracy import Provenance, Runtime
from coreml_prune_bench.records.latency import Device
from coreml_prune_bench.records.schemas import Frozen
from coreml_prune_bench.runtimes.protocol import Load

_BATCH_SIZE = 32


class ParityRecord(Frozen):
    """Core ML on one choice of compute units, and the portable runtime, on the same images.

    top1: by image the best class of each; labels: the true ones. largest_error, score_range: by image, the largest
    difference of a score between the two, and the span of the portable runtime's scores, in the unit of the scores
    (logits, or probabilities of a classifier). rounding_error: by image, what rounding to Float16 alone makes of a
    score: the portable runtime in Float16 beside itself in Float32; empty where a version before 0.2 wrote it.
    """

    model_config = ConfigDict(allow_inf_nan=True)

    schema_version: Literal[1] = 1
    package: str
    sha256: str
    data: str
    fingerprint: str
    device: Device
    runtimes: tuple[Runtime, Runtime]
    provenance: Provenance
    labels: tuple[int, ...]
    top1: tuple[tuple[int, ...], tuple[int, ...]]
    largest_error: tuple[float, ...]
    score_range: tuple[float, ...]
    rounding_error: tuple[float, ...] = ()

    def to_json(self) -> str:
        """Indented JSON in which each list stands on one line."""
        content = self.model_dump(mode="json")
        names = ("labels", "top1", "largest_error", "score_range", "rounding_error")
        lists = {name: content.pop(name) for name in names}
        lines = [f' "{name}": {json.dumps(value, separators=(",", ":"))}' for name, value in lists.items()]
        return ",\n".join([json.dumps(content, indent=1)[:-2], *lines]) + "\n}\n"


@dataclass(frozen=True)
class Compared:
    """The fields of a `ParityRecord` by these names."""

    labels: tuple[int, ...]
    top1: tuple[tuple[int, ...], tuple[int, ...]]
    largest_error: tuple[float, ...]
    score_range: tuple[float, ...]
    rounding_error: tuple[float, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """What a comparison says. Fractions; errors in the unit of the scores, relative_error as a fraction of their span.

    difference: accuracy of the first runtime minus the second, over the same images; difference_stderr: its standard
    error, of the paired differences.
    """

    images: int
    top1_agreement: float
    accuracies: tuple[float, float]
    difference: float
    difference_stderr: float
    mean_error: float
    largest_error: float
    mean_relative_error: float


def compare(
    package: Path,
    split: Split,
    loads: Sequence[Load],
    references: tuple[Load, Load],
    *,
    limit: int | None = None,
    class_map: ClassMap | None = None,
    skip_bad_images: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Compared]:
    """Each of `loads` beside the reference, over the split's images or its first `limit` ones.

    references: the portable runtime in Float32, and in Float16. class_map, errors: as of `evaluate`.
    """
    reference, rounded, *others = (Classifier(package, split, load, class_map) for load in (*references, *loads))
    total = min(len(split), limit or len(split))
    labels: list[int] = []
    spans: list[float] = []
    right, rounding = _Beside([], []), _Beside([], [])
    found = [_Beside([], []) for _ in others]
    for batch in iterate(split, reference.image_size, batch_size=_BATCH_SIZE, skip_bad=skip_bad_images):
        count = min(len(batch.indices), total - len(labels))
        if count > 0:
            images = batch.images[:count]
            scores = reference.scores(images)
            labels += split.labels[batch.indices[:count]].tolist()
            spans += np.ptp(scores, axis=1).astype(float).tolist()
            right.add(scores, scores)
            rounding.add(rounded.scores(images), scores)
            for model, beside in zip(others, found, strict=True):
                beside.add(model.scores(images), scores)
        progress(len(labels), total)
        if len(labels) == total:
            break
    if not labels:
        raise PackageError(f"no image of {split.name} could be compared: all are bad")
    return [
        Compared(
            labels=tuple(labels),
            top1=(tuple(one.best), tuple(right.best)),
            largest_error=tuple(one.errors),
            score_range=tuple(spans),
            rounding_error=tuple(rounding.errors),
        )
        for one in found
    ]


@dataclass(frozen=True)
class _Beside:
    """By image, the best class and the largest error of a score beside the reference."""

    best: list[int]
    errors: list[float]

    def add(self, scores: np.ndarray, reference: np.ndarray) -> None:
        self.best.extend(np.argmax(scores, axis=1).tolist())
        self.errors.extend(np.abs(scores - reference).max(axis=1).astype(float).tolist())


def agreement(record: Compared | ParityRecord) -> Agreement:
    """The figures of a comparison, from what it holds by image."""
    labels = np.array(record.labels)
    first, second = (np.array(one) for one in record.top1)
    errors, spans = np.array(record.largest_error), np.array(record.score_range)
    right = (first == labels).astype(float), (second == labels).astype(float)
    paired = right[0] - right[1]
    spread = float(paired.std(ddof=1)) if len(paired) > 1 else 0.0
    return Agreement(
        images=len(labels),
        top1_agreement=float((first == second).mean()),
        accuracies=(float(right[0].mean()), float(right[1].mean())),
        difference=float(paired.mean()),
        difference_stderr=spread / math.sqrt(len(paired)),
        mean_error=float(errors.mean()),
        largest_error=float(errors.max()),
        mean_relative_error=float(np.mean(np.divide(errors, spans, out=np.zeros_like(errors), where=spans > 0))),
    )


def write_record(results: Path, record: ParityRecord) -> Path:
    """Write a record into RESULTS/parity in one go; returns its path."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(record.package).stem)[:80]
    name = f"{readable}--{record.runtimes[0].compute_units}--{record.sha256[:12]}.json"
    path = results / "parity" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, record.to_json())
    return path
