"""`hf:NAME` and `hf:PATH`: data sets in the layout of Hugging Face `datasets`, which is imported only when asked for.

Opening reads labels and no image, and of the training images nothing before they are asked for: a hub's files are
fetched, and parquet is unpacked, a split at a time. Whatever a hub, a network or a stranger's table does wrong becomes
a DataError.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.core.files import is_foreign, read_file
from coreml_prune_bench.data.imagenet import check_class_names
from coreml_prune_bench.data.remembered import Arrays, remembered
from coreml_prune_bench.data.split import UNREADABLE, Opened, Progress, Split, map_in_threads
from coreml_prune_bench.models.pointers import pointer_problem

if TYPE_CHECKING:
    import datasets  # type: ignore[import-untyped]

    Parts = dict[str, Callable[[], datasets.Dataset]]
    """What loads each split, by its name."""

_VAL_NAMES = ("validation", "val", "test")
_INTEGER_LABELS = ("label", "labels", "fine_label")
_SPLIT_FILE = re.compile(r"(train|validation|val|test)(?=[-_.]|$)")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.parquet$")
_PATIENCE_S = 10

_AnyPath = TypeVar("_AnyPath", Path, PurePosixPath)


@dataclass(frozen=True)
class RowSource:
    """Rows of a table whose one column `image` holds encoded images: {bytes, path}."""

    rows: "datasets.Dataset"
    image: str

    def open(self, index: int) -> PIL.Image.Image:
        return PIL.Image.open(BytesIO(self._encoded(index)))

    def digests(self, progress: Progress | None) -> list[str]:
        def find() -> Arrays:
            digests = map_in_threads(self._digest, len(self.rows), progress=progress)
            return {"digests": np.frombuffer(b"".join(digests), np.uint8).reshape(-1, hashlib.sha256().digest_size)}

        files = [Path(file["filename"]) for file in self.rows.cache_files]
        # A table in memory has no files, and images outside of the table can change without it.
        if not files or self._has_paths_alone():
            found = find()
        else:
            # Its fingerprint tells which rows of the files are chosen.
            kind = f"SHA-256 of column {self.image} of {self.rows._fingerprint}"
            found = remembered(kind, files, find)
        return [digest.tobytes().hex() for digest in found["digests"]]

    def _has_paths_alone(self) -> bool:
        return any(chunk.field("bytes").null_count for chunk in self.rows.data.column(self.image).chunks)

    def _digest(self, index: int) -> bytes:
        try:
            return hashlib.sha256(self._encoded(index)).digest()
        except (OSError, ValueError):
            return bytes.fromhex(UNREADABLE)

    def _encoded(self, index: int) -> bytes:
        cell = self.rows[index][self.image] or {}
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        if cell.get("path"):
            return read_file(Path(cell["path"]))
        raise ValueError("the row holds no image")


def open_hub(name: str) -> Opened:
    """What opens the train split, if there is one, and the val split (validation, val or test; a single split serves).

    `name` is a parquet file, a folder saved with `save_to_disk`, a folder of parquet files, or a name on the hub; a
    path that exists wins. DataError where nothing can be loaded, or no image or usable label column is found.
    """
    with _quiet():
        parts = _parts(name)
        train_name, val_name = _choose(name, list(parts))
        rows = parts[val_name]()
        image, label = _columns(name, rows)
        labels = _labels(f"{name} [{val_name}]", rows, image, label)
        classes = getattr(rows.features[label], "names", None)
        if classes is None:  # numbers, of which the training images may have more
            others = _labels(f"{name} [{train_name}]", parts[train_name](), image, label) if train_name else labels
            classes = [str(number) for number in range(max(labels.max(), others.max()) + 1)]
    check_class_names(name, classes)
    val = _split(name, "val", val_name, rows, image, labels, tuple(classes))

    def open_train(part: str) -> Split:
        with _quiet():
            rows = parts[part]()
            labels = _labels(f"{name} [{part}]", rows, image, label)
        return _split(name, "train", part, rows, image, labels, val.classes)

    return Opened(partial(open_train, train_name) if train_name else None, val)


@contextmanager
def _quiet() -> Iterator[None]:
    """No chatter of the libraries, off a terminal no progress bars either, and their settings as before afterwards."""
    from datasets.utils import logging as datasets_logging  # type: ignore[import-untyped]
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    bars, hub_bars = datasets_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    loggers = (datasets_logging, hub_logging)
    verbosity = [logging.get_verbosity() for logging in loggers]
    for logging in loggers:
        logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets_logging.disable_progress_bar()
        disable_progress_bars()
    try:
        yield
    finally:
        for logging, level in zip(loggers, verbosity, strict=True):
            logging.set_verbosity(level)
        if bars:
            datasets_logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()


# --- finding the splits


def _parts(name: str) -> "Parts":
    import datasets

    path = Path(name).expanduser()
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        with _loading(name, "a readable folder of save_to_disk"):
            return _loaded(datasets.load_from_disk(str(path)))
    if path.is_file():
        return _parquet_parts(name, _by_split([path]))
    if path.is_dir():
        return _parquet_parts(name, _by_split(_parquet_files(path)))
    if _looks_like_a_path(name):
        raise DataError(f"{path} does not exist: expected a parquet file, or a folder of them or of save_to_disk")
    return _hub_parts(name)


@contextmanager
def _loading(name: str, expected: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the hub's client, its HTTP library and every reader have families of their own
        raise DataError(f"cannot load data set {name}: {_reason(error)}; expected {expected}") from error


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__


def _loaded(found: Any) -> "Parts":
    """The splits of what `datasets` has loaded: a table, or a dictionary of them."""
    import datasets

    tables = {"val": found} if isinstance(found, datasets.Dataset) else found
    return {part: partial(tables.__getitem__, part) for part in tables}


def _parquet_parts(name: str, files: Mapping[str, Sequence[Path]]) -> "Parts":
    import datasets

    @cache
    def load(part: str) -> "datasets.Dataset":
        with _loading(name, "readable parquet files"):
            _check_shards(files[part])
            paths = [str(path) for path in files[part]]
            return datasets.load_dataset("parquet", data_files={part: paths}, split=part)

    return {part: partial(load, part) for part in files}


def _check_shards(files: Sequence[Path]) -> None:
    """DataError where some of the files NAME-00000-of-00014.parquet are missing, or were never fetched."""
    for file in files:
        if problem := pointer_problem(file):
            raise DataError(f"{file}: {problem}")
    shards = [int(match[1]) for file in files if (match := _SHARD.search(file.name))]
    if shards and len(files) != shards[0]:
        raise DataError(
            f"{files[0].parent} holds {len(files)} of the {shards[0]} files like {files[0].name}: expected all of them"
        )


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".parquet") or name.count("/") > 1 or "\\" in name


def _parquet_files(folder: Path) -> list[Path]:
    for place in (folder, folder / "data"):
        found = sorted(file for file in place.glob("*.parquet") if not is_foreign(file.name))
        if found:
            return found
    raise DataError(f"{folder} holds no parquet files: expected some in it or in data/, or a folder of save_to_disk")


def _by_split(paths: Sequence[_AnyPath]) -> dict[str, list[_AnyPath]]:
    """Files by the split their names begin with (train-00000-of-00002.parquet); without such names, all are val."""
    splits: dict[str, list[_AnyPath]] = {}
    for path in paths:
        match = _SPLIT_FILE.match(path.name)
        if match:
            splits.setdefault(match[1], []).append(path)
    return splits or {"val": list(paths)}


# --- the hub


def _hub_parts(name: str) -> "Parts":
    """Fetches no file yet, unless the data set is not in parquet, which `datasets` then fetches and reads whole."""
    import datasets
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        # Asked once, where load_dataset asks for half a minute.
        info = HfApi().dataset_info(name, timeout=_PATIENCE_S)
    except RepositoryNotFoundError as error:
        raise DataError(
            f"the hub has no data set {name} that you may see: expected its whole name, and for a private one that "
            "you are logged in (`hf auth login`, or HF_TOKEN)"
        ) from error
    except Exception as error:  # httpx's, the hub's, the system's
        if downloaded := _downloaded(name):
            return _parquet_parts(name, _by_split(downloaded))
        if not isinstance(error, OfflineModeIsEnabled):
            raise DataError(
                f"cannot ask the hub for data set {name}: {_reason(error)}; expected a network that reaches it, or "
                "the data set in a folder, as hf:PATH"
            ) from error
        info = None
    files = _parquet_of([PurePosixPath(file.rfilename) for file in info.siblings or ()]) if info else []
    if info is None or not files:
        with _loading(name, "a data set of images"):
            return _loaded(datasets.load_dataset(name))

    splits = _by_split(files)

    @cache
    def load(part: str) -> "datasets.Dataset":
        chosen = [str(file) for file in splits[part]]
        with _fetching(name):
            folder = Path(snapshot_download(name, repo_type="dataset", allow_patterns=chosen))
        return _parquet_parts(name, {part: [folder / file for file in chosen]})[part]()

    return {part: partial(load, part) for part in splits}


def _parquet_of(files: Sequence[_AnyPath]) -> list[_AnyPath]:
    """The parquet files, where they lie in one folder, under the names of splits: those of one configuration."""
    found = sorted(file for file in files if file.suffix == ".parquet" and not is_foreign(file.name))
    if len({file.parent for file in found}) == 1 and all(_SPLIT_FILE.match(file.name) for file in found):
        return found
    return []


def _downloaded(name: str) -> list[Path]:
    """The parquet files of an earlier download."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, repo_type="dataset", local_files_only=True)
    except LocalEntryNotFoundError:
        return []
    return _parquet_of(list(Path(folder).rglob("*.parquet")))


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError

    with _loading(name, "a network that reaches the hub; what was fetched is kept"):
        try:
            yield
        except GatedRepoError as error:
            raise DataError(
                f"data set {name} is gated: accept its terms at {constants.ENDPOINT}/datasets/{name}, then log in "
                "(`hf auth login`, or HF_TOKEN)"
            ) from error


# --- reading a split


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


def _split(
    data: str,
    name: str,
    part: str,
    rows: "datasets.Dataset",
    image: str,
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
) -> Split:
    import datasets

    if labels.max() >= len(classes):
        raise DataError(
            f"data set {data} [{part}] has label {labels.max()}: expected below {len(classes)}, its classes"
        )
    # Encoded bytes: decoding is for Split.image, and the fingerprint is of what is stored.
    encoded = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False)).with_format(None)
    ids = tuple(f"{part}[{index}]" for index in range(len(rows)))
    return Split(name, classes, labels, ids, RowSource(encoded, image))
