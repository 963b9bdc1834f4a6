"""Top-1 and top-5 of Core ML packages on a split of images: the packages predict, nothing else does.

Several packages share one pass: an image is decoded once, or read once, and given to each.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from coreml_prune_bench.accuracy.class_labels import ClassMap, class_order
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.core.progress import warn
from coreml_prune_bench.data import Batch, Split, iterate
from coreml_prune_bench.data.image_cache import ImageCache, is_worth_keeping
from coreml_prune_bench.mlprogram.program import Feature
from coreml_prune_bench.records.predictions import Precision, Predictions
from coreml_prune_bench.runtimes import portable

if TYPE_CHECKING:
    from coreml_prune_bench.runtimes.protocol import BatchModel, Load

_BATCH_SIZE = 32
_BATCH_PIXELS = 1 << 24
"""A batch of larger images than 724 pixels a side has fewer of them."""
_MOST_PIXELS_A_SIDE = 4096
_TOP = 5

_T = TypeVar("_T")


def evaluate(
    packages: Sequence[Path],
    split: Split,
    *,
    precision: Precision = "float32",
    load: "Load | None" = None,
    class_map: ClassMap | None = None,
    skip_bad_images: bool = False,
    image_cache: bool = True,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[list[Predictions], tuple[str, ...]]:
    """Each package's predictions for every image of the split, and the ids of the images that were skipped as bad.

    `load` is another runtime than the portable one, whose `precision` is. class_map: says which label, or score, is
    which class; without it names tell, and where they tell nothing a warning says so: see `class_order`.
    With `image_cache`, prepared images are kept where that is worth while, and read by the next pass. `say` is told of
    that, `progress` what is being done, and how many images of how many are done.

    Raises PackageError for a package that does not classify images of the split's classes, DataError for a bad image.
    """
    load = load or partial(portable.load, precision=precision)
    classifiers = [Classifier(package, split, load, class_map) for package in packages]
    bad: tuple[str, ...] = ()
    labels: list[int] = []
    for size in sorted({classifier.image_size for classifier in classifiers}):
        taking = [classifier for classifier in classifiers if classifier.image_size == size]
        cached = image_cache and is_worth_keeping(split, size)
        bad, labels = (), []
        with _batches(split, size, cached, skip_bad_images, say, progress) as batches:
            for batch in batches:
                bad += batch.bad
                labels += split.labels[batch.indices].tolist()
                if len(batch.indices):
                    for classifier in taking:
                        classifier.see(batch.images)
                progress("evaluating", len(labels) + len(bad), len(split))
    if not labels:
        raise PackageError(f"no image of {split.name} could be evaluated: all {len(split):,} are bad")
    found = [Predictions(labels=tuple(labels), top5=classifier.top5()) for classifier in classifiers]
    return found, bad


def _batch_size(image_size: int) -> int:
    """A power of two, so that it divides a block of kept images."""
    size = _BATCH_SIZE
    while size > 1 and size * image_size**2 > _BATCH_PIXELS:
        size //= 2
    return size


@contextmanager
def _batches(
    split: Split,
    image_size: int,
    cached: bool,
    skip_bad: bool,
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
) -> Iterator[Iterator[Batch]]:
    """The split's images: the same batches, read or decoded."""
    if not cached:
        yield iterate(split, image_size, batch_size=_batch_size(image_size), skip_bad=skip_bad)
        return
    split.compute_fingerprint(lambda done, total: progress(f"reading {split.name}", done, total))
    with ImageCache(split, image_size, skip_bad=skip_bad, say=say) as cache:
        cache.prepare(lambda done, total: progress("preparing images", done, total))
        yield cache.batches(_batch_size(image_size))


class Classifier:
    """A loaded package, and the five highest classes that it has found for each image so far.

    PackageError where it does not take one square image and give a score for each class of the split.
    """

    def __init__(self, package: Path, split: Split, load: "Load", class_map: ClassMap | None = None) -> None:
        self._package = package
        self._split = split
        self._model = load(package)
        self._input = _image_input(package, self._model.inputs)
        self._output = _scores_output(package, self._model)
        self._top: list[np.ndarray] = []
        # Of a black image, so that a package of other classes is refused before any work is done for it.
        scores = self._scores(np.zeros((1, self.image_size, self.image_size, 3), np.uint8))
        labels = None if self._model.classes is None else [str(name) for name in self._model.classes]
        self._order = class_order(package, labels, scores.shape[1], split.classes, class_map, warn)

    @property
    def image_size(self) -> int:
        size = self._input.shape[0]
        assert size is not None
        return size

    def see(self, images: np.ndarray) -> None:
        """The next images, uint8 [n, H, W, 3]."""
        scores = self.scores(images)
        if not np.isfinite(scores).all():
            raise PackageError(f"{self._package}: its output is not finite (NaN or infinity)")
        # Descending, and of equal scores the lower class first: the same on every machine.
        self._top.append(np.argsort(-scores, axis=1, kind="stable")[:, :_TOP])

    def top5(self) -> tuple[tuple[int, ...], ...]:
        """By image, best class first."""
        return tuple(tuple(row) for row in np.concatenate(self._top).tolist())

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Of uint8 [n, H, W, 3]: [n, classes], in the split's order of classes."""
        return self._scores(images)[:, self._order]

    def _scores(self, images: np.ndarray) -> np.ndarray:
        """In the package's own order."""
        scores = self._model.predict_batch({self._input.name: images})[self._output]
        if scores.ndim != 2:
            raise PackageError(
                f"{self._package}: its output has shape {list(scores.shape[1:])}, the data set has "
                f"{len(self._split.classes)} classes: expected a score for each"
            )
        return scores


def _image_input(package: Path, inputs: tuple[Feature, ...]) -> Feature:
    feature = _one(package, "input", inputs)
    if feature.kind != "image":
        raise PackageError(
            f"{package}: input {feature.name!r} is an array, so how images are to be prepared for it is not known; "
            "expected an image input"
        )
    if feature.shape[0] is None or feature.shape[0] != feature.shape[1] or feature.shape[2] != 3:
        raise PackageError(f"{package}: expected a square colour image of a fixed size, not {feature.shape}")
    if feature.shape[0] > _MOST_PIXELS_A_SIDE:
        raise PackageError(
            f"{package}: takes images of {feature.shape[0]:,} pixels a side, expected at most {_MOST_PIXELS_A_SIDE:,}"
        )
    return feature


def _scores_output(package: Path, model: "BatchModel") -> str:
    """Logits, or the probabilities of a package that ends in a label and a dictionary."""
    if model.classes is None:
        return _one(package, "output", model.output_names)
    return _one(package, "dictionary of probabilities", [f.name for f in model.outputs if f.kind == "probabilities"])


def _one(package: Path, what: str, features: Sequence[_T]) -> _T:
    if len(features) != 1:
        raise PackageError(f"{package}: expected a classifier with one {what}, found {len(features)}")
    return features[0]
