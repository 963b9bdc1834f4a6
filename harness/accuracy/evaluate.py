"""Top-1 and top-5 of Core ML packages on a split of images: the packages predict, nothing else does.

Several packages share one pass: an image is decoded once, or read once, and given to each.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from coreml_prune_bench.accuracy.class_labels import ClassMap, class_order
from coreml_prune_bench.accuracy.doubt import other_preprocessing
from coreml_prune_bench.accuracy.feed import Feed, feed_of
from coreml_prune_bench.core.errors import PackageError, did_you_mean
from coreml_prune_bench.core.progress import say as say_on_stderr
from coreml_prune_bench.data import Batch, Split, iterate
from coreml_prune_bench.data.image_cache import ImageCache, is_worth_keeping
from coreml_prune_bench.models.preprocessing import USUAL, Preprocessing
from coreml_prune_bench.records.predictions import Precision, Predictions
from coreml_prune_bench.runtimes import portable

if TYPE_CHECKING:
    from coreml_prune_bench.runtimes.protocol import BatchModel, Load

_BATCH_SIZE = 32
_BATCH_PIXELS = 1 << 24
"""A batch of larger images than 724 pixels a side has fewer of them."""
_TOP = 5

_T = TypeVar("_T")


def evaluate(
    packages: Sequence[Path],
    split: Split,
    asked: Preprocessing = USUAL,
    *,
    precision: Precision = "float32",
    load: "Load | None" = None,
    class_map: ClassMap | None = None,
    output: str | None = None,
    skip_bad_images: bool = False,
    image_cache: bool = True,
    part: range | None = None,
    say: Callable[[str], None] = lambda line: None,
    tell: Callable[[str], None] = say_on_stderr,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[list[Predictions], tuple[str, ...]]:
    """Each package's predictions for every image of the split, and the ids of the images that were skipped as bad.

    part: only the images at these positions; where all of them are bad, nothing is predicted.
    asked: how images are prepared, and what numbers an array takes; where it does not say, the package has to, see
    `feed_of`. A warning says where another way is shown to be right more often. output: the one with the scores.
    `load` is another runtime than the portable one, whose `precision` is. class_map: says which label, or score, is
    which class; without it names tell, and where they tell nothing a warning says so: see `class_order`.
    With `image_cache`, prepared images are kept where that is worth while, and read by the next pass. `say` is told of
    that, `tell` what a reader has to know, `progress` what is being done, and how many images of how many are done.

    Raises PackageError for a package that does not classify images of the split's classes, DataError for a bad image.
    """
    load = load or partial(portable.load, precision=precision, many=True)
    among = part or range(len(split))
    classifiers = [Classifier(package, split, load, class_map, asked, output, tell) for package in packages]
    if among.start == 0:  # else another part tells
        for package, classifier in zip(packages, classifiers, strict=True):
            if doubt := other_preprocessing(package, classifier, split):
                tell(f"warning: {doubt}")
    bad: tuple[str, ...] = ()
    labels: list[int] = []
    for size in sorted({classifier.image_size for classifier in classifiers}):
        taking = [classifier for classifier in classifiers if classifier.image_size == size]
        cached = image_cache and is_worth_keeping(split, size)
        bad, labels = (), []
        with _batches(split, size, asked, among, cached, skip_bad_images, say, progress) as batches:
            waits = _Waits()
            for batch in waits.watched(batches):
                bad += batch.bad
                labels += split.labels[batch.indices].tolist()
                if len(batch.indices):
                    for classifier in taking:
                        classifier.see(batch.images)
                progress(f"evaluating, limited by {waits.limit}", len(labels) + len(bad), len(among))
    if part is None:
        refuse_none(labels, split)
    if not labels:
        return [], bad
    return [Predictions(labels=tuple(labels), top5=classifier.top5()) for classifier in classifiers], bad


def refuse_none(found: Sequence[object], split: Split) -> None:
    """Raise PackageError where no image was evaluated."""
    if not found:
        raise PackageError(f"no image of {split.name} could be evaluated: all {len(split):,} are bad")


class _Waits:
    """Where the time of an evaluation goes: to images that are waited for, or to predictions of those that are there.

    limit: which of them, looked at ever more rarely: another word begins a new estimate of the time that is left.
    """

    def __init__(self) -> None:
        self.limit = "predictions"
        self._images_s = self._predictions_s = 0.0

    def watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        begun_s = perf_counter()
        for number, batch in enumerate(batches):
            given_s = perf_counter()
            self._images_s += given_s - begun_s
            if number.bit_count() == 1:  # 1, 2, 4, 8, ...
                self.limit = "images" if self._images_s > self._predictions_s else "predictions"
            yield batch
            begun_s = perf_counter()
            self._predictions_s += begun_s - given_s


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
    asked: Preprocessing,
    among: range,
    cached: bool,
    skip_bad: bool,
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
) -> Iterator[Iterator[Batch]]:
    """The split's images at these positions: the same batches, read or decoded."""
    if not cached:
        yield iterate(split, image_size, asked, batch_size=_batch_size(image_size), among=among, skip_bad=skip_bad)
        return
    split.compute_fingerprint(lambda done, total: progress(f"reading {split.name}", done, total))
    with ImageCache(split, image_size, asked, among=among, skip_bad=skip_bad, say=say) as cache:
        cache.prepare(lambda done, total: progress("preparing images", done, total))
        yield cache.batches(_batch_size(image_size))


class Classifier:
    """A loaded package, and the five highest classes that it has found for each image so far.

    asked: how images are prepared for it, as far as that is said. output: the one that has the scores, of several.
    tell: told of what a reader has to know.
    PackageError where it does not take one square image and give a score for each class of the split.
    """

    def __init__(
        self,
        package: Path,
        split: Split,
        load: "Load",
        class_map: ClassMap | None = None,
        asked: Preprocessing = USUAL,
        output: str | None = None,
        tell: Callable[[str], None] = say_on_stderr,
    ) -> None:
        self._package = package
        self._split = split
        self._model = load(package)
        self.feed = feed_of(package, _one(package, "input", self._model.inputs), asked)
        for note in self.feed.notes:
            tell(note)
        self._output = _scores_output(package, self._model, output)
        self._top: list[np.ndarray] = []
        # Of a black image, so that a package of other classes is refused before any work is done for it.
        scores = self._scores(np.zeros((1, self.image_size, self.image_size, 3), np.uint8), self.feed)
        labels = None if self._model.classes is None else [str(name) for name in self._model.classes]

        def warn(line: str) -> None:
            tell(f"warning: {line}")

        self._order = class_order(package, labels, scores.shape[1], split.classes, class_map, warn)

    @property
    def image_size(self) -> int:
        return self.feed.image_size

    @property
    def view(self) -> Preprocessing:
        """What of images is looked at."""
        return self.feed.asked.view

    def see(self, images: np.ndarray) -> None:
        """The next images, uint8 [n, H, W, 3]."""
        scores = self.scores(images)
        if not np.isfinite(scores).all():
            raise PackageError(f"{self._package}: its output is not finite (NaN or infinity)")
        self._top.append(_highest(scores, _TOP))

    def top5(self) -> tuple[tuple[int, ...], ...]:
        """By image, best class first."""
        return tuple(tuple(row) for row in np.concatenate(self._top).tolist())

    def scores(self, images: np.ndarray, asked: Preprocessing | None = None) -> np.ndarray:
        """Of uint8 [n, H, W, 3]: [n, classes], in the split's order of classes. asked: other numbers than it is fed."""
        feed = self.feed if asked is None else feed_of(self._package, self.feed.feature, asked)
        return self._scores(images, feed)[:, self._order]

    def _scores(self, images: np.ndarray, feed: Feed) -> np.ndarray:
        """In the package's own order."""
        scores = self._model.predict_batch({feed.feature.name: feed(images)})[self._output]
        longest = max(scores.shape[1:], default=1)
        if scores.size != len(scores) * longest:
            raise PackageError(
                f"{self._package}: its output {self._output!r} has shape {list(scores.shape[1:])}, the data set has "
                f"{len(self._split.classes)} classes: expected a score for each"
            )
        return scores.reshape(len(scores), longest)


def _highest(scores: np.ndarray, count: int) -> np.ndarray:
    """The classes with the highest of [n, classes], descending, as [n, count] (fewer where there are no more).

    Of equal scores the lower class first: the same on every machine.
    """
    if scores.shape[1] > count:
        found = np.sort(np.argpartition(-scores, count - 1, axis=1)[:, :count], axis=1)
        least = np.take_along_axis(scores, found, 1).min(axis=1, keepdims=True)
        if ((scores >= least).sum(axis=1) == count).all():  # no other class is equal to the last one that was found
            order = np.argsort(-np.take_along_axis(scores, found, 1), axis=1, kind="stable")
            return np.take_along_axis(found, order, 1)
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def _scores_output(package: Path, model: "BatchModel", asked: str | None) -> str:
    """Logits, or the probabilities of a package that ends in a label and a dictionary; of several, the one `asked`."""
    names = [feature.name for feature in model.outputs if feature.kind in ("array", "probabilities")]
    if asked is not None:
        if asked not in names:
            raise PackageError(
                f"{package}: no output {asked!r} with scores: {', '.join(names)}{did_you_mean(asked, names)}"
            )
        return asked
    if model.classes is not None:
        names = [feature.name for feature in model.outputs if feature.kind == "probabilities"]
        return _one(package, "dictionary of probabilities", names)
    if len(names) > 1:
        raise PackageError(f"{package}: it has several outputs; --output says which one: {', '.join(names)}")
    return _one(package, "output", names)


def _one(package: Path, what: str, features: Sequence[_T]) -> _T:
    if len(features) != 1:
        raise PackageError(f"{package}: expected a classifier with one {what}, found {len(features)}")
    return features[0]
