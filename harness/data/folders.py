"""`imagefolder:PATH`: images in one folder a class.

Opening lists files and reads none. Class order decides every label, so it is never guessed from what happens to be
present where PATH or ImageNet says what it is.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.core.files import read_file
from coreml_prune_bench.data.imagenet import check_known_images, wordnet_ids
from coreml_prune_bench.data.remembered import DigestCache
from coreml_prune_bench.data.split import UNREADABLE, Opened, Progress, Split, map_in_threads
from coreml_prune_bench.models.pointers import pointer_text_problem

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True)
class FileSource:
    """Image files beneath `root`, by their relative paths."""

    root: Path
    files: tuple[str, ...]

    def open(self, index: int) -> PIL.Image.Image:
        # Read at once: a lazy image would hold its file open.
        content = read_file(self.root / self.files[index])
        if problem := pointer_text_problem(content):
            raise DataError(f"{self.root / self.files[index]}: {problem}")
        return PIL.Image.open(BytesIO(content))

    def digests(self, progress: Progress | None) -> list[str]:
        cache = DigestCache(self.root)

        def digest(index: int) -> str:
            try:
                return cache.digest(self.files[index])
            except OSError:
                return UNREADABLE

        digests: list[str] = []
        try:
            digests = map_in_threads(digest, len(self.files), progress=progress)
        finally:
            cache.save(whole=len(digests) == len(self.files))  # after Ctrl-C too: hashing 150 GB takes its time
        return digests


def open_folder(path: Path) -> Opened:
    """What opens the train split, if there is one, and the val split of PATH.

    PATH holds `train/` and `val/`, or `val/` alone, or is one split itself and then serves as val. Classes are the
    lines of PATH's `classes.txt`; else ImageNet-1k's 1,000 where every folder is named by one of its WordNet ids; else
    the sorted names of all class folders. DataError where a path, a folder or an image is missing or unknown.
    """
    roots = _split_roots(path)
    folders = {name: class_folders(root) for name, root in roots.items()}
    classes = _classes(path, sorted(set().union(*folders.values())))
    val = split_of_folders("val", roots["val"], folders["val"], classes)
    if "train" not in roots:
        return Opened(None, val)
    return Opened(lambda: split_of_folders("train", roots["train"], folders["train"], classes), val)


def class_folders(root: Path) -> list[str]:
    """Sorted names of the folders in `root`, hidden ones left out; DataError where there is none."""
    try:
        with os.scandir(root) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot list {root}: {error.strerror}; expected a readable folder") from error
    if not names:
        raise DataError(
            f"{root} holds no class folders: expected one folder a class with its images inside (ImageNet's flat "
            "val/ beside its devkit is imagenet:PATH)"
        )
    return names


def split_of_folders(name: str, root: Path, folders: list[str], classes: tuple[str, ...]) -> Split:
    """The images in these class folders of `root`, in the order of their paths; DataError where there is none."""
    position = {folder: label for label, folder in enumerate(classes)}
    found = [(file, position[folder]) for folder in folders for file in _image_files(root, folder)]
    if not found:
        expected = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{root} holds no images: expected files ending in {expected} in its class folders")
    found.sort()
    images = tuple(file for file, _ in found)
    check_known_images(root, images)
    labels = np.array([label for _, label in found], np.int64)
    ids = tuple(f"{name}/{file}" for file in images)
    return Split(name, classes, labels, ids, FileSource(root, images))


def _split_roots(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        raise DataError(f"{path} is not a folder: expected one with train/ and val/, or with one folder a class")
    if (path / "val").is_dir():
        return {name: path / name for name in ("train", "val") if (path / name).is_dir()}
    if (path / "train").is_dir():
        raise DataError(f"{path} has train/ but no val/: expected val/ with one folder a class")
    return {"val": path}


def _classes(path: Path, folders: list[str]) -> tuple[str, ...]:
    listed = path / "classes.txt"
    if listed.is_file():
        return _listed_classes(listed, folders)
    imagenet = wordnet_ids()
    return imagenet if set(folders) <= set(imagenet) else tuple(folders)


def _listed_classes(listed: Path, folders: list[str]) -> tuple[str, ...]:
    try:
        lines = listed.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {listed}: expected UTF-8 text with one class folder's name a line") from error
    classes = tuple(line.strip() for line in lines if line.strip())
    if not classes:
        raise DataError(f"{listed} is empty: expected one class folder's name a line, in class order")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"{listed} names {twice} twice: expected every class once")
    unknown = sorted(set(folders) - set(classes))
    if unknown:
        raise DataError(f"class folder {unknown[0]} is not in {listed}: add its line or remove the folder")
    return classes


def _image_files(root: Path, folder: str) -> Iterator[str]:
    """Paths relative to `root`, with forward slashes. Hidden files are left out: macOS writes ._x.jpg beside x.jpg."""

    def fail(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename}: {error.strerror}; expected a readable folder") from error

    for parent, _, names in os.walk(root / folder, onerror=fail):
        place = Path(parent).relative_to(root).as_posix()
        for name in names:
            if is_image(name):
                yield f"{place}/{name}"


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
