"""Apple's runtimes beside the portable one, image by image: how they vouch for accuracies measured elsewhere."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coreml_prune_bench.accuracy.class_labels import ClassMap
from coreml_prune_bench.accuracy.evaluate import Classifier
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.data import Split, iterate
from coreml_prune_bench.models.preprocessing import USUAL, Preprocessing
from coreml_prune_bench.records.parity import ParityRecord
from coreml_prune_bench.runtimes.protocol import Load

_BATCH_SIZE = 32
_FLOAT32_ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Of an image's largest score: what adding in another order makes of it where nothing is typed as Float16."""


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
    asked: Preprocessing = USUAL,
    *,
    output: str | None = None,
    class_map: ClassMap | None = None,
    skip_bad_images: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Compared]:
    """Each of `loads` beside the reference, over the split's images.

    references: the portable runtime in Float32, and in Float16. asked, output, class_map, errors: as of `evaluate`.
    """
    reference = Classifier(package, split, references[0], class_map, asked, output)
    rounded, *others = (
        Classifier(package, split, load, class_map, asked, output, tell=lambda line: None)  # the same once more
        for load in (references[1], *loads)
    )
    labels: list[int] = []
    spans: list[float] = []
    least: list[float] = []
    right, rounding = _Beside([], []), _Beside([], [])
    found = [_Beside([], []) for _ in others]
    seen = 0
    for batch in iterate(split, reference.image_size, asked, batch_size=_BATCH_SIZE, skip_bad=skip_bad_images):
        if len(batch.indices):
            scores = reference.scores(batch.images)
            labels += split.labels[batch.indices].tolist()
            spans += np.ptp(scores, axis=1).astype(float).tolist()
            least += (_FLOAT32_ROUNDING * np.abs(scores).max(axis=1)).astype(float).tolist()
            right.add(scores, scores)
            rounding.add(rounded.scores(batch.images), scores)
            for model, beside in zip(others, found, strict=True):
                beside.add(model.scores(batch.images), scores)
        seen += len(batch.indices) + len(batch.bad)
        progress(seen, len(split))
    if not labels:
        raise PackageError(f"no image of {split.name} could be compared: all are bad")
    rounding_error = tuple(np.maximum(rounding.errors, least).tolist())
    return [
        Compared(
            labels=tuple(labels),
            top1=(tuple(one.best), tuple(right.best)),
            largest_error=tuple(one.errors),
            score_range=tuple(spans),
            rounding_error=rounding_error,
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
