"""What ImageNet-1k (ILSVRC 2012) is: its classes in order, how many images, and the labels of a few that all know.

No file names of archives, no reading of images: only what a copy of it can be held to.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.models.imagenet import IMAGENET_CLASSES, IMAGENET_VALIDATION_IMAGES

CLASSES = IMAGENET_CLASSES
VAL_IMAGES = IMAGENET_VALIDATION_IMAGES
TRAIN_IMAGES = 1_281_167

# https://github.com/BVLC/caffe/blob/master/data/ilsvrc12/get_ilsvrc_aux.sh: the head of its val.txt, which every
# framework's class order agrees with.
_FIRST_VAL_LABELS = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332)

# A few classes by position, under the first of their names in WordNet.
_KNOWN_CLASSES = {
    0: "tench",
    1: "goldfish",
    65: "sea snake",
    207: "golden retriever",
    340: "zebra",
    388: "giant panda",
    954: "banana",
    999: "toilet tissue",
}


@cache
def wordnet_ids() -> tuple[str, ...]:
    """The WordNet id of each class, in class order, which is that of the ids."""
    return tuple(
        files("coreml_prune_bench.data").joinpath("imagenet_wordnet_ids.txt").read_text(encoding="ascii").split()
    )


@cache
def known_images() -> Mapping[str, str]:
    """The WordNet id of the first validation images, by file name."""
    ids = wordnet_ids()
    return {f"ILSVRC2012_val_{n:08}.JPEG": ids[label] for n, label in enumerate(_FIRST_VAL_LABELS, start=1)}


def places_of(classes: Sequence[str]) -> tuple[int, ...] | None:
    """Where each of these WordNet ids stands in the class order; None where one of them is not of ImageNet-1k."""
    places = {wordnet_id: place for place, wordnet_id in enumerate(wordnet_ids())}
    return tuple(places[name] for name in classes) if set(classes) <= places.keys() else None


def check_known_images(place: Path, paths: Sequence[str]) -> None:
    """DataError where a validation image whose class is known lies in the folder of another WordNet id.

    `paths` are those of images beneath `place`, the folder of their class first, with forward slashes.
    """
    known, ids = known_images(), set(wordnet_ids())
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name in known and folder in ids and folder != known[name]:
            raise DataError(
                f"{place / path} is of class {known[name]}: the labels of this folder are wrong; sort the validation "
                "images anew, or give the original archives as imagenet:PATH"
            )


def check_class_names(data: str, classes: Sequence[str]) -> None:
    """DataError where these are ImageNet-1k's classes, by WordNet id or by English names, in another order."""
    ids = wordnet_ids()
    if len(classes) != CLASSES:
        return
    if set(classes) == set(ids):
        names, known = list(classes), dict(enumerate(ids))
    else:
        names, known = [name.split(",")[0] for name in classes], _KNOWN_CLASSES
    if not set(known.values()) <= set(names):
        return
    for position, name in known.items():
        if names[position] != name:
            raise DataError(
                f"data set {data} has ImageNet-1k's classes in another order: class {position} is "
                f"{classes[position]!r}, expected {name!r}"
            )
