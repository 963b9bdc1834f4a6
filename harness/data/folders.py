"""`imagefolder:PATH`: images in one folder a class, read as torchvision's ImageFolder reads them.

Opening lists files and reads none. Class order decides every label, so it is never guessed from what happens to be
present where PATH or ImageNet says what it is. What is left out is told, but for what systems make by themselves.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.core.files import is_foreign, read_file
from coreml_prune_bench.data.imagenet import check_known_images, wordnet_ids
from coreml_prune_bench.data.remembered import DigestCache
from coreml_prune_bench.data.split import UNREADABLE, Opened, Progress, Split, map_in_threads
from coreml_prune_bench.models.pointers import pointer_text_problem

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
"""torchvision's: torchvision.datasets.folder.IMG_EXTENSIONS."""

_KINDS_SHOWN = 4


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
    the sorted names of all class folders, of which each must hold an image, as torchvision asks. DataError where a
    path, a folder or an image is missing or unknown.
    """
    roots = _split_roots(path)
    folders = {name: class_folders(root) for name, root in roots.items()}
    named = _named_classes(path, sorted(set().union(*folders.values())))
    found = {"val": list_images(roots["val"], folders["val"])}
    if named is None and "train" in roots and (empty := found["val"].empty):
        # Training images are not listed before somebody trains, but for classes that would have no image else.
        found["empty in val"] = list_images(roots["train"], [name for name in folders["train"] if name in empty])
    classes = named or _classes_with_images(path, folders, found)
    val = split_of_images("val", found["val"], classes)
    if "train" not in roots:
        return Opened(None, val)
    return Opened(lambda: split_of_folders("train", roots["train"], folders["train"], classes), val)


def class_folders(root: Path) -> list[str]:
    """Sorted names of the folders in `root`, without hidden and foreign ones; DataError where there is none."""
    try:
        with os.scandir(root) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name))
    except OSError as error:
        raise DataError(f"cannot list {root}: {error.strerror}; expected a readable folder") from error
    if not names:
        raise DataError(
            f"{root} holds no class folders: expected one folder a class with its images inside (ImageNet's flat "
            "val/ beside its devkit is imagenet:PATH)"
        )
    return names


@dataclass(frozen=True)
class FolderImages:
    """The image files in class folders of `root`: by folder, paths relative to root with forward slashes.

    left_out: how many other files, by what they are in words.
    """

    root: Path
    files: Mapping[str, list[str]]
    left_out: Mapping[str, int]

    @property
    def empty(self) -> list[str]:
        return [folder for folder, files in self.files.items() if not files]

    @property
    def told(self) -> tuple[str, ...]:
        """What a reader has to know: a line, or none."""
        if not self.left_out:
            return ()
        kinds = sorted(self.left_out.items(), key=lambda kind: (-kind[1], kind[0]))
        listed = ", ".join(f"{count:,} {what}" for what, count in kinds[:_KINDS_SHOWN])
        total = sum(self.left_out.values())
        more = ", ..." if len(kinds) > _KINDS_SHOWN else ""
        return (
            f"{self.root}: {total:,} {'file is' if total == 1 else 'files are'} left out ({listed}{more}); images are "
            f"files in class folders that end in {_suffixes()}",
        )


def list_images(root: Path, folders: Iterable[str]) -> FolderImages:
    """The images in these class folders of `root`. DataError for a folder that cannot be listed."""
    left_out: Counter[str] = Counter()
    files = {folder: _image_files(root, folder, left_out) for folder in folders}
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir():
                left_out["in hidden folders"] += _files_of_hidden(root, entry.name)
            elif is_image(entry.name):
                left_out["beside the class folders"] += 1
    return FolderImages(root, files, +left_out)


def split_of_folders(name: str, root: Path, folders: list[str], classes: tuple[str, ...]) -> Split:
    """The images in these class folders of `root`, in the order of their paths; DataError where there is none."""
    return split_of_images(name, list_images(root, folders), classes)


def split_of_images(name: str, found: FolderImages, classes: tuple[str, ...]) -> Split:
    """The same of what was listed."""
    position = {folder: label for label, folder in enumerate(classes)}
    labelled = sorted((file, position[folder]) for folder, files in found.files.items() for file in files)
    if not labelled:
        told = f" ({found.told[0]})" if found.left_out else ""
        raise DataError(f"{found.root} holds no images: expected files ending in {_suffixes()} in its folders{told}")
    images = tuple(file for file, _ in labelled)
    check_known_images(found.root, images)
    labels = np.array([label for _, label in labelled], np.int64)
    ids = tuple(f"{name}/{file}" for file in images)
    return Split(name, classes, labels, ids, FileSource(found.root, images), found.told)


def _split_roots(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        raise DataError(f"{path} is not a folder: expected one with train/ and val/, or with one folder a class")
    if (path / "val").is_dir():
        return {name: path / name for name in ("train", "val") if (path / name).is_dir()}
    if (path / "train").is_dir():
        raise DataError(f"{path} has train/ but no val/: expected val/ with one folder a class")
    return {"val": path}


def _named_classes(path: Path, folders: list[str]) -> tuple[str, ...] | None:
    """The classes that PATH or ImageNet names; None where the folders are the classes."""
    listed = path / "classes.txt"
    if listed.is_file():
        return _listed_classes(listed, folders)
    imagenet = wordnet_ids()
    return imagenet if set(folders) <= set(imagenet) else None


def _classes_with_images(
    path: Path, folders: Mapping[str, list[str]], found: Mapping[str, FolderImages]
) -> tuple[str, ...]:
    """The names of the class folders. DataError where one has no image in any split: a class more is another order."""
    known = {folder for images in found.values() for folder in images.files if images.files[folder]}
    unseen = {folder for folder in folders.get("train", ()) if folder not in folders["val"]}
    names = sorted(set().union(*folders.values()))
    empty = [name for name in names if name not in known | unseen]
    if not empty or len(empty) == len(names):
        return tuple(names)
    listed = ", ".join(empty[:_KINDS_SHOWN]) + ("" if len(empty) <= _KINDS_SHOWN else f" and {len(empty) - 4} more")
    places = " and ".join(str(images.root) for images in found.values())
    told = "".join(f"; {line}" for line in found["val"].told)
    raise DataError(
        f"class folders without an image in {places}: {listed}; remove them, or name every class, a line each, in "
        f"{path / 'classes.txt'}{told}"
    )


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


def _image_files(root: Path, folder: str, left_out: Counter[str]) -> list[str]:
    """Paths relative to `root`, with forward slashes. Links to folders are followed, as torchvision does, once each."""

    def fail(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename}: {error.strerror}; expected a readable folder") from error

    found: list[str] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(root / folder, onerror=fail, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        left_out["in hidden folders"] += sum(_files_of_hidden(Path(parent), name) for name in folders)
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        place = Path(parent).relative_to(root).as_posix()
        for name in names:
            if is_image(name):
                found.append(f"{place}/{name}")
            elif not is_foreign(name):
                left_out["hidden" if name.startswith(".") else os.path.splitext(name)[1].lower() or "no ending"] += 1
    return found


def _files_of_hidden(parent: Path, name: str) -> int:
    """How many files a folder holds, if it is a hidden one that no system makes by itself."""
    hidden = name.startswith(".") and not is_foreign(name)
    return sum(len(names) for _, _, names in os.walk(parent / name)) if hidden else 0


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image. Hidden ones are not: macOS writes ._x.jpg beside x.jpg."""
    return not _is_hidden(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_foreign(name)


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
