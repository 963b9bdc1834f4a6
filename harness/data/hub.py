"""`hf:NAME` and `hf:PATH`: data sets in the layout of Hugging Face `datasets`, which is imported only when asked for.

Opening reads labels and no image. Whatever a hub, a network or a stranger's table does wrong becomes a DataError.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from harness.data.split import Progress, Split, map_in_threads
from harness.errors import DataError

if TYPE_CHECKING:
    import datasets  # type: ignore[import-untyped]

_VAL_NAMES = ("validation", "val", "test")
_INTEGER_LABELS = ("label", "labels", "fine_label")
_SPLIT_FILE = re.compile(r"(train|validation|val|test)(?=[-_.]|$)")


@dataclass(frozen=True)
class RowSource:
    """Rows of a table whose one column `image` holds encoded images: {bytes, path}."""

    rows: "datasets.Dataset"
    image: str

    def open(self, index: int) -> PIL.Image.Image:
        return PIL.Image.open(BytesIO(self._encoded(index)))

    def digests(self, progress: Progress | None) -> list[str]:
        return map_in_threads(self._digest, len(self.rows), progress=progress)

    def _digest(self, index: int) -> str:
        try:
            return hashlib.sha256(self._encoded(index)).hexdigest()
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read row {index} of column {self.image!r}: {error}; expected an image") from error

    def _encoded(self, index: int) -> bytes:
        cell = self.rows[index][self.image] or {}
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        if cell.get("path"):
            return Path(cell["path"]).read_bytes()
        raise ValueError("the row holds no image")


def open_hub(name: str) -> tuple[Split | None, Split]:
    """The train split, if there is one, and the val split (validation, val or test; a single split serves as val).

    `name` is a parquet file, a folder saved with `save_to_disk`, a folder of parquet files, or a name on the hub; a
    path that exists wins. DataError where nothing can be loaded, or no image or usable label column is found.
    """
    with _quiet():
        tables = _load(name)
        train_name, val_name = _choose(name, list(tables))
        chosen = {part: tables[part] for part in (train_name, val_name) if part is not None}
        image, label = _columns(name, tables[val_name])
        labels = {part: _labels(f"{name} [{part}]", rows, image, label) for part, rows in chosen.items()}
        classes = _classes(name, tables[val_name], label, labels)
        val = _split("val", val_name, tables[val_name], image, labels[val_name], classes)
        if train_name is None:
            return None, val
        return _split("train", train_name, tables[train_name], image, labels[train_name], classes), val


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no chatter of `datasets`, and its settings as they were afterwards."""
    from datasets.utils import logging  # type: ignore[import-untyped]

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _load(name: str) -> "Mapping[str, datasets.Dataset]":
    import datasets

    loaded: Any  # a Dataset, or a dictionary of them by split
    path = Path(name).expanduser()
    try:
        if path.is_file():
            loaded = datasets.load_dataset("parquet", data_files=_by_split([path]))
        elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = datasets.load_from_disk(str(path))
        elif path.is_dir():
            loaded = datasets.load_dataset("parquet", data_files=_by_split(_parquet_files(path)))
        elif _looks_like_a_path(name):
            raise DataError(f"{path} does not exist: expected a parquet file, or a folder of them or of save_to_disk")
        else:
            loaded = datasets.load_dataset(name)
    except DataError:
        raise
    except Exception as error:  # the hub's client, its HTTP library and every reader have families of their own
        reason = next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__
        expected = (
            "readable parquet or save_to_disk data" if path.exists() else "a folder, or a name on a reachable hub"
        )
        raise DataError(f"cannot load data set {name}: {reason}; expected {expected}") from error
    return {"val": loaded} if isinstance(loaded, datasets.Dataset) else loaded


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".parquet") or name.count("/") > 1 or "\\" in name


def _parquet_files(folder: Path) -> list[Path]:
    for place in (folder, folder / "data"):
        found = sorted(place.glob("*.parquet"))
        if found:
            return found
    raise DataError(f"{folder} holds no parquet files: expected some in it or in data/, or a folder of save_to_disk")


def _by_split(paths: list[Path]) -> dict[str, list[str]]:
    """Files by the split their names begin with (train-00000-of-00002.parquet); without such names, all are val."""
    splits: dict[str, list[str]] = {}
    for path in paths:
        match = _SPLIT_FILE.match(path.name)
        if match:
            splits.setdefault(match[1], []).append(str(path))
    return splits or {"val": [str(path) for path in paths]}


def _choose(name: str, splits: list[str]) -> tuple[str | None, str]:
    if len(splits) == 1:
        return None, splits[0]
    val = next((split for split in _VAL_NAMES if split in splits), None)
    if val is None:
        raise DataError(f"data set {name} has splits {', '.join(splits)}: expected one of {', '.join(_VAL_NAMES)}")
    return ("train" if "train" in splits else None), val


def _columns(name: str, rows: "datasets.Dataset") -> tuple[str, str]:
    """The image column and the label column."""
    import datasets

    features = rows.features
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    images += [column for column, feature in features.items() if isinstance(feature, dict) and "bytes" in feature]
    if not images:
        raise DataError(f"data set {name} has columns {', '.join(features)}: expected one of images")
    labels = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels += [column for column in _INTEGER_LABELS if "int" in str(getattr(features.get(column), "dtype", ""))]
    if not labels:
        expected = f"a ClassLabel, or integers named {', '.join(_INTEGER_LABELS)}"
        raise DataError(f"data set {name} has columns {', '.join(features)}: expected {expected}")
    return images[0], labels[0]


def _labels(place: str, rows: "datasets.Dataset", image: str, label: str) -> NDArray[np.int64]:
    for column in (image, label):
        if column not in rows.features:
            raise DataError(f"{place} has no column {column}: expected the same columns in every split")
    if len(rows) == 0:
        raise DataError(f"{place} holds no images: expected at least one row")
    # Through Arrow: of that one column, with the rows that select() or shuffle() left.
    table: Any = rows.select_columns([label]).with_format("arrow")[:]
    column = table.column(0)
    if column.null_count:
        raise DataError(f"{place} lacks {column.null_count} values in column {label}: expected a label an image")
    labels = np.asarray(column.to_numpy(), np.int64)
    if labels.min() < 0:
        raise DataError(
            f"{place} has label {labels.min()} (hidden labels?): expected 0 and above; use a labelled split"
        )
    return labels


def _classes(
    name: str, rows: "datasets.Dataset", label: str, labels: Mapping[str, NDArray[np.int64]]
) -> tuple[str, ...]:
    highest = max(int(values.max()) for values in labels.values())
    names = getattr(rows.features[label], "names", None)
    if names is None:
        return tuple(str(number) for number in range(highest + 1))
    if highest >= len(names):
        raise DataError(
            f"data set {name} has label {highest} in column {label}: expected below {len(names)}, its classes"
        )
    return tuple(names)


def _split(
    name: str, part: str, rows: "datasets.Dataset", image: str, labels: NDArray[np.int64], classes: tuple[str, ...]
) -> Split:
    import datasets

    # Encoded bytes: decoding is for Split.image, and the fingerprint is of what is stored.
    encoded = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False)).with_format(None)
    ids = tuple(f"{part}[{index}]" for index in range(len(rows)))
    return Split(name, classes, labels, ids, RowSource(encoded, image))
