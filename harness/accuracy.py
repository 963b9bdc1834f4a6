"""Top-1 and top-5 of a Core ML package on a split of images: the package predicts, nothing else does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from harness.data import Split, iterate
from harness.errors import PackageError
from harness.records import Precision, Predictions
from harness.runtimes import portable
from harness.runtimes.portable.reader import Feature

if TYPE_CHECKING:
    from harness.runtimes.portable.session import Model

_BATCH_SIZE = 32
_TOP = 5

_T = TypeVar("_T")


def evaluate(
    package: Path,
    split: Split,
    *,
    precision: Precision = "float32",
    skip_bad_images: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Predictions, tuple[str, ...]]:
    """The package's predictions for every image of the split, and the ids of the images that were skipped as bad.

    Raises PackageError for a package that does not classify images of the split's classes, DataError for a bad image.
    """
    model = portable.load(package, precision=precision)
    image = _image_input(package, model.inputs)
    size = image.shape[0]
    assert size is not None
    output = _scores_output(package, model)
    labels: list[int] = []
    top: list[np.ndarray] = []
    skipped: list[str] = []
    for batch in iterate(split, size, batch_size=_BATCH_SIZE, skip_bad=skip_bad_images):
        skipped += batch.bad
        if len(batch.indices):
            scores = model.predict_batch({image.name: batch.images})[output]
            _check_classes(package, scores, split)
            scores = scores[:, _class_order(model, split)]
            # Descending, and of equal scores the lower class first: the same on every machine.
            top.append(np.argsort(-scores, axis=1, kind="stable")[:, :_TOP])
            labels += split.labels[batch.indices].tolist()
        progress(len(labels) + len(skipped), len(split))
    if not labels:
        raise PackageError(f"{package}: no image of {split.name} could be evaluated")
    top5 = tuple(tuple(row) for row in np.concatenate(top).tolist())
    return Predictions(labels=tuple(labels), top5=top5), tuple(skipped)


def _image_input(package: Path, inputs: tuple[Feature, ...]) -> Feature:
    feature = _one(package, "input", inputs)
    if feature.kind != "image":
        raise PackageError(
            f"{package}: input {feature.name!r} is an array, so how images are to be prepared for it is not known; "
            "expected an image input"
        )
    if feature.shape[0] is None or feature.shape[0] != feature.shape[1] or feature.shape[2] != 3:
        raise PackageError(f"{package}: expected a square colour image of a fixed size, not {feature.shape}")
    return feature


def _scores_output(package: Path, model: "Model") -> str:
    """Logits, or the probabilities of a package that ends in a label and a dictionary."""
    if model.classes is None:
        return _one(package, "output", model.output_names)
    return _one(package, "dictionary of probabilities", [f.name for f in model.outputs if f.kind == "probabilities"])


def _class_order(model: "Model", split: Split) -> list[int]:
    """Where the data set's classes stand among the scores: by name where the package has the same names, else as is."""
    names = [str(name) for name in model.classes or ()]
    if sorted(names) != sorted(split.classes):
        return list(range(len(split.classes)))
    return [names.index(name) for name in split.classes]


def _one(package: Path, what: str, features: Sequence[_T]) -> _T:
    if len(features) != 1:
        raise PackageError(f"{package}: expected a classifier with one {what}, found {len(features)}")
    return features[0]


def _check_classes(package: Path, scores: np.ndarray, split: Split) -> None:
    if scores.ndim != 2 or scores.shape[1] != len(split.classes):
        raise PackageError(
            f"{package}: a class count that does not match: its output has shape {list(scores.shape[1:])}, "
            f"the data set has {len(split.classes)} classes"
        )
    if not np.isfinite(scores).all():
        raise PackageError(f"{package}: its output is not finite (NaN or infinity)")
