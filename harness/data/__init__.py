"""Data sets: open one by its spec, read its images as arrays, fingerprint its content.

A spec is `digits`, `imagefolder:PATH`, `imagenet:PATH`, `hf:NAME` or `hf:PATH`, a module here each. Opening decodes
nothing. This package must not import torch, and imports scikit-learn, scipy and `datasets` only when a spec needs them.
"""

import hashlib
import os
import statistics
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data.digits import open_digits
from coreml_prune_bench.data.folders import open_folder
from coreml_prune_bench.data.hub import open_hub
from coreml_prune_bench.data.imagenet_files import open_imagenet
from coreml_prune_bench.data.images import (
    Batch,
    augment,
    iterate,
    load_images,
)
from coreml_prune_bench.data.split import DataSet, Opened, Progress, Split, tell
from coreml_prune_bench.data.transform import preprocess
from coreml_prune_bench.models.imagenet import IMAGENET_SIZE
from coreml_prune_bench.models.paths import expanded

__all__ = [
    "Batch",
    "DataSet",
    "Progress",
    "Split",
    "augment",
    "iterate",
    "load_images",
    "open_data",
    "preprocess",
]

_PROBES = 32


_KINDS: dict[str, tuple[str, Callable[[str], Opened]]] = {
    "digits": ("digits", lambda place: open_digits()),
    "imagefolder": ("imagefolder:PATH", lambda place: open_folder(expanded(place))),
    "imagenet": ("imagenet:PATH", lambda place: open_imagenet(expanded(place))),
    "hf": ("hf:NAME or hf:PATH", open_hub),
}
"""By the word before the colon: the spec's form, and what opens the place behind it. A new source is a line here."""


def open_data(spec: str) -> DataSet:
    """The data set that `spec` names; DataError with one line where it is unknown, missing or unusable."""
    kind, _, place = spec.partition(":")
    form, opens = _KINDS.get(kind, ("", None))
    if opens is None or (":" in form) != bool(place):
        expected = ", ".join(form for form, _ in _KINDS.values())
        raise DataError(f"unknown data set {spec!r}: expected {expected}{_meant(spec)}")
    opened = opens(place)
    tell(opened.val.notes)
    image_size = opened.image_size or _image_size(opened.val)
    path = path_of(spec)
    return DataSet(
        spec,
        opened.val.classes,
        opened.open_train,
        opened.val,
        image_size,
        opened.photographs,
        revision=opened.revision,
        place=None if path is None else hashlib.sha256(os.fsencode(path)).hexdigest()[:16],
    )


def path_of(spec: str) -> Path | None:
    """The folder or file that a spec names, under the one spelling that it has on this disk; None where it names none.

    Links are followed; of a disk that takes capitals for small letters, names are as they stand on it.
    """
    place = expanded(spec.partition(":")[2])
    if ":" not in spec or not os.path.exists(place):
        return None
    path = Path(os.path.realpath(place))
    for part in (path, *path.parents):
        path = _as_listed(part) / path.relative_to(part)
    return path


def _as_listed(path: Path) -> Path:
    """`path` with its last name as its folder lists it."""
    with suppress(OSError):
        names = os.listdir(path.parent)
        alike = [name for name in names if name != path.name and _letters(name) == _letters(path.name)]
        if alike and path.name not in names:
            return next((path.parent / name for name in alike if path.samefile(path.parent / name)), path)
    return path


def _letters(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _meant(spec: str) -> str:
    """What a spec may have been meant to be, as the end of a message: a path has no kind, or a kind is misspelled."""
    kind, colon, place = spec.partition(":")
    path = expanded(spec)
    if spec and os.path.exists(path):
        saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        tables = path.suffix == ".parquet" or saved or any(path.glob("*.parquet")) or any(path.glob("data/*.parquet"))
        if tables:
            return f"; did you mean 'hf:{spec}'?"
        if any(path.glob("ILSVRC2012_*")):
            return f"; did you mean 'imagenet:{spec}'?"
        return f"; did you mean 'imagefolder:{spec}'?" if path.is_dir() else ""
    near = get_close_matches(kind.lower(), _KINDS, n=1)
    if not near or near == [kind]:
        return ""
    return f"; did you mean {near[0] + colon + place!r}?"


def _image_size(val: Split) -> int:
    """224, or the median shorter side of evenly spaced images where that is smaller; a suite may say another."""
    sides: list[int] = []
    for index in np.linspace(0, len(val) - 1, min(_PROBES, len(val))).astype(int):
        with suppress(DataError):  # one bad image is for whoever decodes it, with --skip-bad-images at hand
            sides.append(val.shorter_side(int(index)))
    return min(IMAGENET_SIZE, statistics.median_low(sides)) if sides else IMAGENET_SIZE
