"""Packages on the same images: one as a row that a gate can judge, and two side by side, image by image."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.accuracy.class_labels import ClassMap
from coreml_prune_bench.accuracy.evaluate import evaluate
from coreml_prune_bench.aimodel.programs import read_package
from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.core.keys import package_versions
from coreml_prune_bench.data import DataSet
from coreml_prune_bench.gating.checks import ClassChange, Row
from coreml_prune_bench.gating.limits import RuleSet
from coreml_prune_bench.gating.lost import class_changes
from coreml_prune_bench.gating.packed import packed
from coreml_prune_bench.gating.rows import AccuracyRow, Baseline, Images, Trial
from coreml_prune_bench.gating.verdicts import gate
from coreml_prune_bench.mlprogram.summary import PackageSummary, WeightSummary
from coreml_prune_bench.models.preprocessing import USUAL, Preprocessing
from coreml_prune_bench.records.accuracy import Runtime
from coreml_prune_bench.records.hits import right
from coreml_prune_bench.records.predictions import Precision, Predictions

Progress = Callable[[str, int, int], None]

# What coremltools appends to a weight's name when it casts or compresses it.
_STORED_AS = re.compile(r"(_to_fp(16|32)|_sparsified|_palettized|_quantized)+$")


@dataclass(frozen=True)
class EvaluatedPackage:
    """A package on the val split of a data set."""

    path: Path
    summary: PackageSummary
    predictions: Predictions
    skipped: tuple[str, ...]
    sha256: str
    asked: Preprocessing = USUAL

    def row(self, name: str, data: DataSet, precision: Precision) -> AccuracyRow:
        """As a gate judges it: one trial of a package that no cell made, called `name`."""
        version = f"onnxruntime {package_versions('onnxruntime')['onnxruntime']}"
        return AccuracyRow(
            model=name,
            images=Images(
                spec=data.spec,
                split=data.val.name,
                fingerprint=data.val.fingerprint,
                count=len(self.predictions.labels),
                skipped=self.skipped,
                view=self.asked.unusual_view,
            ),
            runtime=Runtime(name="portable", version=version, precision=precision, compute_units="cpu"),
            trials=(
                Trial(
                    correct=packed(right(self.predictions)),
                    sha256=self.sha256,
                    weight_bytes=self.summary.weight_bytes,
                    whole_model_sparsity=self.summary.whole_model_sparsity or 0.0,
                    package_bytes=self.summary.package_bytes,
                ),
            ),
        )


@dataclass(frozen=True)
class LayerChange:
    """One weight in both packages; None where a package has none of that name, or its sparsity is not known."""

    name: str
    sparsity: tuple[float | None, float | None]
    size_bytes: tuple[int | None, int | None]
    storage: tuple[str | None, str | None]


@dataclass(frozen=True)
class Comparison:
    """The second package against the first. top1, top5: fractions. rethought: images that both get wrong, differently.

    lost, gained: ids of images that only the first gets right, and only the second. classes: those in which an image
    changed, the greatest loss first. row: the verdict, as of a gate whose baseline is the first package.
    """

    packages: tuple[str, str]
    data: str
    images: int
    skipped: tuple[str, ...]
    top1: tuple[float, float]
    top5: tuple[float, float]
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    rethought: int
    classes: tuple[ClassChange, ...]
    weight_bytes: tuple[int, int]
    package_bytes: tuple[int, int]
    whole_model_sparsity: tuple[float | None, float | None]
    layers: tuple[LayerChange, ...]
    row: Row

    def as_dict(self) -> dict[str, Any]:
        """Plain values under stable names."""
        return asdict(self)


def measure(
    packages: Sequence[Path],
    data: DataSet,
    asked: Preprocessing = USUAL,
    *,
    precision: Precision = "float32",
    class_map: ClassMap | None = None,
    output: str | None = None,
    skip_bad_images: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> list[EvaluatedPackage]:
    """Read packages and evaluate them in one pass. asked, class_map, output, and the errors: as of `evaluate`."""
    summaries = [(read_package(package), tree_hash(package)) for package in packages]
    found, skipped = evaluate(
        packages,
        data.val,
        asked,
        precision=precision,
        class_map=class_map,
        output=output,
        skip_bad_images=skip_bad_images,
        progress=progress,
    )
    return [
        EvaluatedPackage(package, summary, predictions, skipped, sha256, asked)
        for package, (summary, sha256), predictions in zip(packages, summaries, found, strict=True)
    ]


def compare(
    first: EvaluatedPackage,
    second: EvaluatedPackage,
    data: DataSet,
    precision: Precision,
    rules: RuleSet | None = None,
) -> Comparison:
    """Two packages that were measured on the same data. rules: of a dense row take the first package for it."""
    old, new = (one.row("package", data, precision) for one in (first, second))
    before = Baseline(measured="", accuracy=(old.model_copy(update={"algorithm": "dense"}),))
    report = gate(before, Baseline(measured="", accuracy=(new,)), rules, against_dense=True)
    labels = np.array(first.predictions.labels)
    best = [np.array([top[0] for top in one.predictions.top5]) for one in (first, second)]
    right = [classes == labels for classes in best]
    lost, gained = right[0] & ~right[1], ~right[0] & right[1]
    skipped = set(first.skipped)
    ids = [name for name in data.val.ids if name not in skipped]
    return Comparison(
        packages=(str(first.path), str(second.path)),
        data=data.spec,
        images=len(labels),
        skipped=first.skipped,
        top1=(first.predictions.top1, second.predictions.top1),
        top5=(first.predictions.top5_accuracy, second.predictions.top5_accuracy),
        lost=tuple(ids[index] for index in np.flatnonzero(lost)),
        gained=tuple(ids[index] for index in np.flatnonzero(gained)),
        rethought=int((~right[0] & ~right[1] & (best[0] != best[1])).sum()),
        classes=class_changes(data.classes, labels, lost, gained),
        weight_bytes=(first.summary.weight_bytes, second.summary.weight_bytes),
        package_bytes=(first.summary.package_bytes, second.summary.package_bytes),
        whole_model_sparsity=(first.summary.whole_model_sparsity, second.summary.whole_model_sparsity),
        layers=_layer_changes(first.summary, second.summary),
        row=report.rows[0],
    )


def _layer_changes(first: PackageSummary, second: PackageSummary) -> tuple[LayerChange, ...]:
    """Of weights of rank 2 and more, in the program's order; what only one package has comes with what it lacks."""
    old, new = (_weights(summary) for summary in (first, second))
    changes = []
    for name in dict.fromkeys((*old, *new)):
        sides = (old.get(name), new.get(name))
        changes.append(
            LayerChange(
                name,
                sparsity=(sides[0].sparsity if sides[0] else None, sides[1].sparsity if sides[1] else None),
                size_bytes=(sides[0].size_bytes if sides[0] else None, sides[1].size_bytes if sides[1] else None),
                storage=(sides[0].storage if sides[0] else None, sides[1].storage if sides[1] else None),
            )
        )
    return tuple(changes)


def _weights(summary: PackageSummary) -> dict[str, WeightSummary]:
    return {_STORED_AS.sub("", weight.name): weight for weight in summary.weights if len(weight.shape) >= 2}
