"""A data set, or a part of one: images by which a package is chosen, images that judge the choice, and few of them.

`SPEC#selection` and `SPEC#final` have no image in common with each other, nor with the training images. `SPEC#500` are
500 of val's images, drawn at random and always the same ones. This module must not import torch.
"""

from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import (
    DataSet,
    Progress,
    Split,
    open_data,
    path_of,
)
from coreml_prune_bench.data.split import ImageSource

PARTS = ("selection", "final")

_MOST = 5_000
"""Images of a part: an accuracy is then known to 0.7 points at worst, a difference on the same images to less."""
_CALIBRATION = 512
"""Images at most, and a third at most, that serve as training images where there are no others."""


def open_data_or_part(spec: str) -> DataSet:
    """The data set that `spec` names, or that part of it. DataError as of `open_data` and `part_of`."""
    whole, part = _divided(spec)
    if not part:
        _refuse_no_part(spec)
        return open_data(whole)
    opened = open_data_or_part(whole)  # which may be a part itself
    return limited(opened, int(part)) if part.isdecimal() else part_of(opened, part)


def is_here(spec: str) -> bool:
    """Whether the data set can be opened without asking a hub: it is a folder of this machine, or comes along."""
    whole, part = _divided(spec)
    return is_here(whole) if part else ":" not in whole or path_of(whole) is not None


def with_limit(spec: str, limit: int | None) -> str:
    """The spec of so many of its images, as `--limit` asks for them; itself for None."""
    return spec if limit is None else f"{spec}#{limit}"


def limited(data: DataSet, count: int) -> DataSet:
    """`count` of its val images, of any class; all where there are no more. Training images stay as they are."""
    val = data.val
    if count >= len(val):
        return data
    places = np.random.RandomState(0).permutation(len(val))[:count]  # as of `part_of`
    name = f"{val.name}, {count:,} of {len(val):,}"
    return replace(
        data,
        spec=f"{data.spec}#{count}",
        place=data.place and f"{data.place}#{count}",
        val=_taken(val, places, name),
        open_train=(lambda: data.train) if data.open_train else None,
    )


def same_part(spec: str, of: str) -> str:
    """The spec of that part of it which `of` is of its own whole."""
    whole, part = _divided(of)
    return f"{same_part(spec, whole)}#{part}" if part else spec


def from_any_folder(spec: str) -> str:
    """The spec with the whole path of its folder, if it names one: it then means the same wherever it is read."""
    whole, part = _divided(spec)
    if part:
        return f"{from_any_folder(whole)}#{part}"
    path = path_of(whole)
    return spec if path is None else f"{whole.partition(':')[0]}:{path}"


def _divided(spec: str) -> tuple[str, str]:
    """A spec and the part that it names, which is empty where it names none."""
    whole, _, part = spec.rpartition("#")
    number = part.isdecimal() and int(part) > 0 and path_of(spec) is None  # else a folder called so
    return (whole, part) if whole and (part in PARTS or number) else (spec, "")


def _refuse_no_part(spec: str) -> None:
    """Raise DataError where what is before the # of a spec is a data set, and what is behind it no part of one."""
    whole, sign, part = spec.rpartition("#")
    known = _without_parts(whole)
    is_data = known == "digits" or known.startswith("hf:") or path_of(known) is not None
    if sign and is_data and path_of(spec) is None:  # else a folder called so
        parts = ", ".join(f"#{name}" for name in PARTS)
        raise DataError(
            f"{spec}: {part!r} is no part of {whole}: expected {parts} or a number of images from 1 on, as #500"
        )


def _without_parts(spec: str) -> str:
    whole, part = _divided(spec)
    return _without_parts(whole) if part else spec


def part_of(data: DataSet, part: str) -> DataSet:
    """The `part` of a data set, with its training images. Which images are in it follows from their number alone.

    Its val split is halved at random. Without a train split, some of val's images become training images, and are in
    neither half. Raises DataError where there are too few images.
    """
    val = data.val
    places = np.random.RandomState(0).permutation(len(val))  # a stream that NumPy promises never to change (NEP 19)
    calibration = places[: 0 if data.open_train else min(_CALIBRATION, len(val) // 3)]
    places = places[len(calibration) :]
    half = len(places) // 2
    if not half:
        raise DataError(f"{data.spec}: {len(val)} images cannot be divided into some to choose by and some to judge")
    chosen = places[:half] if part == "selection" else places[half:]
    return replace(
        data,
        spec=f"{data.spec}#{part}",
        place=data.place and f"{data.place}#{part}",
        val=_taken(val, chosen[:_MOST], f"{val.name}, {part}"),
        open_train=lambda: data.train or _taken(val, calibration, "calibration"),
    )


def _taken(split: Split, places: NDArray[np.int64], name: str) -> Split:
    """The images of a split at `places`, in the split's order."""
    places = np.sort(places)
    ids = tuple(split.ids[place] for place in places)
    return Split(name, split.classes, split.labels[places], ids, _Taken(split.source, places))


@dataclass(frozen=True, eq=False)
class _Taken:
    """The images of another source at `places`, int64 [N]."""

    source: ImageSource
    places: NDArray[np.int64]

    def open(self, index: int) -> PIL.Image.Image:
        return self.source.open(int(self.places[index]))

    def digests(self, progress: Progress | None) -> list[str]:
        digests = self.source.digests(progress)
        return [digests[place] for place in self.places]
