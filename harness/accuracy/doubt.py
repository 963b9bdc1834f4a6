"""Were the images prepared as the package was trained with? Asked of a few images, by preparing them in other ways.

Only of arrays: an image input has its numbers inside the package.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coreml_prune_bench.accuracy.feed import Feed
from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import Split, load_images
from coreml_prune_bench.models.preprocessing import Preprocessing
from coreml_prune_bench.records.statistics import mcnemar

if TYPE_CHECKING:
    from coreml_prune_bench.accuracy.evaluate import Classifier

_IMAGES = 48
_SURE = 1e-3
"""Of each of a handful of other ways, so that a right one is doubted in half a per cent of cases at most."""

_OTHERS: dict[str, dict[str, object]] = {
    "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "--mean 0.5 --std 0.5": {"mean": (0.5,), "std": (0.5,)},
    f"--scale {1 / 255:.6g}": {"scale": 1 / 255},
    "--scale 1": {"scale": 1.0},
}


def other_preprocessing(package: Path, classifier: "Classifier", split: Split) -> str | None:
    """A line where another way to prepare images is shown to be right more often (McNemar's test); None if none is."""
    asked = classifier.feed.asked
    if classifier.feed.layout is None:
        return None
    images, labels = _few(split, classifier.image_size, asked)
    if not len(labels):
        return None
    right = _right(classifier, asked, images, labels)
    found = []
    for option, other in _ways(asked, classifier.feed):
        better = _right(classifier, other, images, labels)
        p = mcnemar(int((better & ~right).sum()), int((right & ~better).sum()))
        found.append((p, -int(better.sum()), option))
    p, count, option = min(found, default=(1.0, 0, ""))
    if p > _SURE:
        return None
    return (
        f"{package}: of {len(labels)} images it gets {int(right.sum())} right as they were prepared "
        f"({asked.in_words()}), and {-count} with {option}: is that what it was trained with?"
    )


def _ways(asked: Preprocessing, feed: Feed) -> Iterator[tuple[str, Preprocessing]]:
    takes_integers = np.dtype(feed.feature.dtype).kind in "iu"  # which are pixels as they are, and no others
    for option, numbers in () if takes_integers else _OTHERS.items():
        other = Preprocessing.model_validate(asked.view.model_dump() | {"layout": asked.layout} | numbers)
        if other.affine() != asked.affine() and len(other.affine()[0]) in (1, feed.channels):
            yield option, other
    if feed.channels == 3:
        axes, _, order = (feed.layout or "").partition("-")
        swapped = axes if order else f"{axes}-BGR"
        yield f"--layout {swapped}", asked.model_copy(update={"layout": swapped})


def _few(split: Split, image_size: int, asked: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Images from all over the split, uint8 [n, H, W, 3], and their labels; those that do not decode are left out."""
    images, labels = [], []
    for place in np.linspace(0, len(split) - 1, min(_IMAGES, len(split))).astype(int).tolist():
        try:
            images.append(load_images(split, [place], image_size, asked)[0])
        except DataError:
            continue
        labels.append(int(split.labels[place]))
    return np.array(images), np.array(labels)


def _right(classifier: "Classifier", asked: Preprocessing, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.argmax(classifier.scores(images, asked), axis=1) == labels
