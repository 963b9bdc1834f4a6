"""Core ML beside the portable runtime, image by image: how a Mac vouches for accuracies measured elsewhere."""

import json
import math
import re
from collections.abc import Callable
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
    """Both runtimes on the same images. top1: by image the best class of each; labels: the true ones.

    largest_error, score_range: by image, the largest difference of a score between the two, and the span of the
    portable runtime's scores, in the unit of the scores (logits, or probabilities of a classifier).
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

    def to_json(self) -> str:
        """Indented JSON in which each list stands on one line."""
        content = self.model_dump(mode="json")
        lists = {name: content.pop(name) for name in ("labels", "top1", "largest_error", "score_range")}
        lines = [f' "{name}": {json.dumps(value, separators=(",", ":"))}' for name, value in lists.items()]
        return ",\n".join([json.dumps(content, indent=1)[:-2], *lines]) + "\n}\n"


@dataclass(frozen=True)
class Compared:
    """Per image: labels and both runtimes' best classes, the largest error of a score, and the scores' span."""

    labels: tuple[int, ...]
    top1: tuple[tuple[int, ...], tuple[int, ...]]
    largest_error: tuple[float, ...]
    score_range: tuple[float, ...]


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
    loads: tuple[Load, Load],
    *,
    limit: int | None = None,
    class_map: ClassMap | None = None,
    skip_bad_images: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Compared:
    """Both runtimes' scores for the split's images, or its first `limit` ones. class_map, errors: as of `evaluate`."""
    first, second = (Classifier(package, split, load, class_map) for load in loads)
    total = min(len(split), limit or len(split))
    labels: list[int] = []
    best: tuple[list[int], list[int]] = ([], [])
    errors: list[float] = []
    spans: list[float] = []
    for batch in iterate(split, first.image_size, batch_size=_BATCH_SIZE, skip_bad=skip_bad_images):
        count = min(len(batch.indices), total - len(labels))
        if count > 0:
            ours, reference = (one.scores(batch.images[:count]) for one in (first, second))
            labels += split.labels[batch.indices[:count]].tolist()
            best[0].extend(np.argmax(ours, axis=1).tolist())
            best[1].extend(np.argmax(reference, axis=1).tolist())
            errors += np.abs(ours - reference).max(axis=1).astype(float).tolist()
            spans += np.ptp(reference, axis=1).astype(float).tolist()
        progress(len(labels), total)
        if len(labels) == total:
            break
    if not labels:
        raise PackageError(f"no image of {split.name} could be compared: all are bad")
    return Compared(tuple(labels), (tuple(best[0]), tuple(best[1])), tuple(errors), tuple(spans))


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
