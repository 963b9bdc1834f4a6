"""`imagenet:PATH`: ImageNet-1k as it is handed out or as torchvision unpacks it, complete or refused.

    PATH/ILSVRC2012_devkit_t12.tar.gz   or ILSVRC2012_devkit_t12/: the labels; not needed where val/ has class folders
    PATH/ILSVRC2012_img_val.tar         or val/, flat or with a folder for each WordNet id
    PATH/ILSVRC2012_img_train.tar       or train/, with a folder for each WordNet id; only for who trains

Archives are read in place. Images go by the names that they have once torchvision has unpacked them, so that the same
images have the same fingerprint in every form.
"""

import re
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import imagenet
from coreml_prune_bench.data.folders import (
    FileSource,
    class_folders,
    is_image,
    split_of_folders,
)
from coreml_prune_bench.data.split import ImageSource, Opened, Split
from coreml_prune_bench.data.tars import TarSource, list_tar
from coreml_prune_bench.models.pointers import pointer_problem

_DEVKIT = "ILSVRC2012_devkit_t12"
_META = "data/meta.mat"
_GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
_VAL_TAR = "ILSVRC2012_img_val.tar"
_TRAIN_TAR = "ILSVRC2012_img_train.tar"
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def open_imagenet(path: Path) -> Opened:
    """What opens the train split, if there is one, and the val split, in the order of their paths.

    DataError where a file is missing or damaged, and where images, classes or labels are not those of ImageNet-1k.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder: expected one with {_VAL_TAR} and {_DEVKIT}.tar.gz, or with val/")
    if _has_class_folders(path / "val") and not (path / _VAL_TAR).is_file():
        val = _class_folders("val", path / "val", imagenet.VAL_IMAGES)
    else:
        val = _labelled_val(path, _read_devkit(path))
    if (path / _TRAIN_TAR).is_file():
        return Opened(lambda: _train_from_tar(path / _TRAIN_TAR), val)
    if (path / "train").is_dir():
        return Opened(lambda: _class_folders("train", path / "train", imagenet.TRAIN_IMAGES), val)
    return Opened(None, val)


# --- val


def _labelled_val(path: Path, id_of: tuple[str, ...]) -> Split:
    """From the flat images of the archive, or of val/, with the WordNet ids of the devkit."""
    if (path / _VAL_TAR).is_file():
        place = path / _VAL_TAR
        members = list_tar(place)
        names: tuple[str, ...] = members.names
    elif (path / "val").is_dir():
        place = path / "val"
        names = tuple(entry.name for entry in place.iterdir() if is_image(entry.name))
    else:
        raise DataError(f"{path} holds no validation images: expected {_VAL_TAR} or val/")
    position = _val_numbers(place, names)
    # Sorted by WordNet id and name, as the files of class folders are.
    order = sorted(range(1, imagenet.VAL_IMAGES + 1), key=lambda number: (id_of[number - 1], number))
    chosen = np.array([position[number] for number in order])
    source: ImageSource
    if place.is_dir():
        source = FileSource(place, tuple(names[index] for index in chosen))
    else:
        source = TarSource(members, chosen)
    folders = [id_of[number - 1] for number in order]
    return _split("val", folders, [names[index] for index in chosen], source)


def _val_numbers(place: Path, names: tuple[str, ...]) -> dict[int, int]:
    """Where in `names` each number of a validation image stands; DataError unless each is there once."""
    matches = [(_VAL_NAME.fullmatch(name), index) for index, name in enumerate(names)]
    position = {int(match[1]): index for match, index in matches if match}
    expected = range(1, imagenet.VAL_IMAGES + 1)
    if set(position) != set(expected):
        first = next((number for number in expected if number not in position), None)
        what = f"{len(position):,} validation images" if first is None else f"no ILSVRC2012_val_{first:08}.JPEG"
        raise DataError(
            f"{place} holds {what}: expected ILSVRC2012_val_{1:08}.JPEG to "
            f"ILSVRC2012_val_{imagenet.VAL_IMAGES:08}.JPEG and no others; is it complete?"
        )
    return position


# --- train


def _train_from_tar(place: Path) -> Split:
    members = list_tar(place)
    folders = [name.partition("/")[0] for name in members.names]
    _check_classes(place, folders)
    _check_count(place, len(folders), imagenet.TRAIN_IMAGES)
    chosen = np.array(sorted(range(len(folders)), key=members.names.__getitem__))
    files = [members.names[index].partition("/")[2] for index in chosen]
    return _split("train", [folders[index] for index in chosen], files, TarSource(members, chosen))


# --- both


def _has_class_folders(place: Path) -> bool:
    return place.is_dir() and any(entry.is_dir() and not entry.name.startswith(".") for entry in place.iterdir())


def _class_folders(name: str, place: Path, images: int) -> Split:
    folders = class_folders(place)
    _check_classes(place, folders)
    split = split_of_folders(name, place, folders, imagenet.wordnet_ids())
    _check_count(place, len(split), images)
    return split


def _check_classes(place: Path, found: Iterable[str]) -> None:
    present, ids = set(found), set(imagenet.wordnet_ids())
    if unknown := sorted(present - ids):
        raise DataError(f"{place} holds {unknown[0]}, which is no class of ImageNet-1k: expected WordNet ids alone")
    if missing := sorted(ids - present):
        raise DataError(f"{place} lacks class {missing[0]}: expected all {imagenet.CLASSES:,} of ImageNet-1k")


def _check_count(place: Path, found: int, expected: int) -> None:
    if found != expected:
        raise DataError(
            f"{place} holds {found:,} images: expected ImageNet-1k's {expected:,}; is it complete? (For a part of "
            "ImageNet, in class folders, there is imagefolder:PATH.)"
        )


def _split(name: str, folders: list[str], files: list[str], source: ImageSource) -> Split:
    classes = imagenet.wordnet_ids()
    label = {folder: number for number, folder in enumerate(classes)}
    ids = tuple(f"{name}/{folder}/{file}" for folder, file in zip(folders, files, strict=True))
    return Split(name, classes, np.array([label[folder] for folder in folders], np.int64), ids, source)


# --- the devkit


def _read_devkit(path: Path) -> tuple[str, ...]:
    """The WordNet id of each validation image, by its number less one."""
    place, meta, truth = _devkit_files(path)
    id_of = _read_meta(f"{place}: {_META}", meta)
    ids = tuple(id_of[number] for number in _read_ground_truth(f"{place}: {_GROUND_TRUTH}", truth))
    for found, (image, known) in zip(ids, imagenet.known_images().items(), strict=False):
        if found != known:
            raise DataError(
                f"{place}: {_GROUND_TRUTH} makes {image} one of {found}, which is one of {known}: expected the labels "
                "of ILSVRC 2012, in the order of the images' numbers"
            )
    return ids


def _devkit_files(path: Path) -> tuple[Path, bytes, bytes]:
    """Where the devkit is, and the content of its meta.mat and of its validation labels."""
    folder, archive = path / _DEVKIT, path / f"{_DEVKIT}.tar.gz"
    try:
        if folder.is_dir():
            return folder, (folder / _META).read_bytes(), (folder / _GROUND_TRUTH).read_bytes()
        if not archive.is_file():
            raise DataError(f"{path} lacks {archive.name}, which has the labels: expected it beside the images")
        with tarfile.open(archive, "r:gz") as tar:
            files = [tar.extractfile(f"{_DEVKIT}/{file}") for file in (_META, _GROUND_TRUTH)]
            meta, truth = (file.read() if file else b"" for file in files)
        return archive, meta, truth
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        place = folder if folder.is_dir() else archive
        if problem := pointer_problem(place):
            raise DataError(f"{place}: {problem}") from error
        raise DataError(f"cannot read {place}: {error}; expected the devkit of ILSVRC 2012, whole") from error


def _read_meta(place: str, content: bytes) -> dict[int, str]:
    """The WordNet id of each class number of the devkit."""
    from scipy.io import loadmat

    try:
        synsets: Any = loadmat(BytesIO(content), squeeze_me=True)["synsets"]
        leaves = synsets[synsets["num_children"] == 0]
        id_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    except Exception as error:  # a reader of a stranger's binary file, with errors of its own and of everyone's
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(f"cannot read {place}: {reason}; expected that of ILSVRC 2012") from error
    if sorted(id_of) != list(range(1, imagenet.CLASSES + 1)) or set(id_of.values()) != set(imagenet.wordnet_ids()):
        raise DataError(f"{place} has {len(id_of):,} classes that are not ImageNet-1k's: expected ILSVRC 2012's file")
    return id_of


def _read_ground_truth(place: str, content: bytes) -> list[int]:
    """The devkit's class number of each validation image."""
    lines = content.decode("ascii", "replace").split()
    if len(lines) != imagenet.VAL_IMAGES:
        raise DataError(f"{place} has {len(lines):,} labels: expected {imagenet.VAL_IMAGES:,}, one a line")
    for number, line in enumerate(lines, start=1):
        if not line.isdecimal() or not 1 <= int(line) <= imagenet.CLASSES:
            raise DataError(f"{place}, line {number}: {line!r} is no class; expected 1 to {imagenet.CLASSES:,}")
    labels = [int(line) for line in lines]
    each = imagenet.VAL_IMAGES // imagenet.CLASSES
    counts = np.bincount(labels, minlength=imagenet.CLASSES + 1)[1:]
    if (wrong := np.flatnonzero(counts != each)).size:
        raise DataError(
            f"{place} gives class {wrong[0] + 1} to {counts[wrong[0]]} images: expected {each} of each class; these "
            "are not the labels of ILSVRC 2012's validation images"
        )
    return labels
