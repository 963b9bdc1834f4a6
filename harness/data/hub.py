"""`hf:NAME` and `hf:PATH`: data sets in the layout of Hugging Face `datasets`, which is imported only when asked for.

Opening reads labels and no image, and of the training images nothing before they are asked for: a hub's files are
fetched, and parquet is unpacked, a split at a time. Whatever a hub, a network or a stranger's table does wrong becomes
a DataError.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.core.files import read_file
from coreml_prune_bench.data.hub_client import HubClientError, fetch_all, fetch_files
from coreml_prune_bench.data.imagenet import check_class_names
from coreml_prune_bench.data.remembered import Arrays, remembered
from coreml_prune_bench.data.split import UNREADABLE, Opened, Progress, Split, map_in_threads
from coreml_prune_bench.data.tables import (
    Parts,
    by_split,
    loaded,
    loading,
    local_parts,
    parquet_files,
    parquet_of,
    parquet_parts,
    reason_of,
)
from coreml_prune_bench.data.transform import shallow, upright
from coreml_prune_bench.models.download_limits import limit_s, too_slow
from coreml_prune_bench.models.paths import expanded

if TYPE_CHECKING:
    import datasets  # type: ignore[import-untyped]

_VAL_NAMES = ("validation", "val", "test")
_INTEGER_LABELS = ("label", "labels", "fine_label")
_PATIENCE_S = 10


@dataclass(frozen=True)
class RowSource:
    """Rows of a table whose one column `image` holds encoded images: {bytes, path}.

    mode: what the column says that its images are converted to, None for as they are. Both that and EXIF orientation
    are applied, as `datasets` itself does where it decodes.
    """

    rows: "datasets.Dataset"
    image: str
    mode: str | None = None

    def open(self, index: int) -> PIL.Image.Image:
        image = upright(PIL.Image.open(BytesIO(self._encoded(index))))
        return image if self.mode in (None, image.mode) else shallow(image).convert(self.mode)

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

    `name` is a parquet file, a folder saved with `save_to_disk`, a folder of parquet files, or a name on the hub, with
    @REVISION for another commit, branch or tag than main; a path that exists wins. DataError where nothing can be
    loaded, or no image or usable label column is found.
    """
    with _quiet():
        parts = _parts(name)
        train_name, val_name = _choose(name, list(parts.tables))
        rows = parts.tables[val_name]()
        image, label, unused = _columns(name, rows)
        labels = _labels(f"{name} [{val_name}]", rows, image, label)
        classes = getattr(rows.features[label], "names", None)
        if classes is None:  # numbers, of which the training images may have more
            others = (
                _labels(f"{name} [{train_name}]", parts.tables[train_name](), image, label) if train_name else labels
            )
            classes = [str(number) for number in range(max(labels.max(), others.max()) + 1)]
    check_class_names(name, classes)
    val = _split(name, "val", val_name, rows, image, labels, tuple(classes), (*parts.notes, *unused))

    def open_train(part: str) -> Split:
        with _quiet():
            rows = parts.tables[part]()
            labels = _labels(f"{name} [{part}]", rows, image, label)
        return _split(name, "train", part, rows, image, labels, val.classes)

    return Opened(partial(open_train, train_name) if train_name else None, val, revision=parts.revision)


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


def _parts(name: str) -> Parts:
    import datasets

    path = expanded(name)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        with loading(name, "a readable folder of save_to_disk"):
            return Parts(loaded(datasets.load_from_disk(str(path))))
    if path.is_file():
        return local_parts(name, [path])
    if path.is_dir():
        return local_parts(name, parquet_files(path))
    name, _, revision = name.partition("@")
    if _looks_like_a_path(name):
        raise DataError(f"{path} does not exist: expected a parquet file, or a folder of them or of save_to_disk")
    return _hub_parts(name, revision or None)


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".parquet") or name.count("/") > 1 or "\\" in name


# --- the hub


def _hub_parts(name: str, revision: str | None) -> Parts:
    """Of one commit, whatever is pushed meanwhile. Fetches no file yet, unless the data set is not in parquet.

    That one `datasets` fetches and reads whole.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        # Asked once, where load_dataset asks for half a minute.
        info = HfApi().dataset_info(name, revision=revision, timeout=_PATIENCE_S, files_metadata=True)
    except HFValidationError as error:
        raise DataError(f"hf:{name} is no name of a data set on the hub: expected hf:OWNER/NAME, or hf:PATH") from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"the hub has no data set {name} that you may see: expected its whole name, and for a private one that "
            "you are logged in (`hf auth login`, or HF_TOKEN)"
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"data set {name} has no revision {revision}: expected a commit, a branch or a tag") from error
    except Exception as error:  # httpx's, the hub's, the system's
        if folder := _downloaded(name, revision):
            told = f"cannot ask the hub for data set {name} ({reason_of(error)}): commit {folder.name} is used"
            notes = () if isinstance(error, OfflineModeIsEnabled) else (told,)
            files = by_split(parquet_of(list(folder.rglob("*.parquet"))))
            return Parts(parquet_parts(name, files), folder.name, notes)
        if not isinstance(error, OfflineModeIsEnabled):
            raise DataError(
                f"cannot ask the hub for data set {name}: {reason_of(error)}; expected a network that reaches it, or "
                "the data set in a folder, as hf:PATH"
            ) from error
        with loading(name, "a data set of images"):
            return Parts(loaded(datasets.load_dataset(name, revision=revision)), revision)
    commit = str(info.sha)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    splits = by_split(parquet_of([PurePosixPath(file) for file in sizes]))
    if not any(splits.values()):
        with loading(name, "a data set of images"), _fetching(name):
            fetch_all(name, commit, limit_s=_limit_s(sizes.values()))
        with loading(name, "a data set of images"):
            return Parts(loaded(datasets.load_dataset(name, revision=commit)), commit)

    @cache
    def load(part: str) -> "datasets.Dataset":
        chosen = [str(file) for file in splits[part]]
        with _fetching(name):
            folder = fetch_files(name, commit, chosen, limit_s=_limit_s(sizes[file] for file in chosen))
        return parquet_parts(name, {part: [folder / file for file in chosen]})[part]()

    return Parts({part: partial(load, part) for part in splits}, commit)


def _limit_s(sizes: Iterable[int | None]) -> float:
    """How long files of these sizes may take; None: one that the hub does not say."""
    known = list(sizes)
    return limit_s(None if None in known else sum(size or 0 for size in known))


def _downloaded(name: str, revision: str | None) -> Path | None:
    """The folder of an earlier download, named by its commit; None unless it holds parquet files.

    Without a revision the newest one: what is fetched by its commit leaves no note of which branch that was.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    if revision is not None:
        try:
            found = [Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))]
        except LocalEntryNotFoundError:
            return None
    else:
        place = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="dataset") / "snapshots"
        found = sorted(place.glob("*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    return next((folder for folder in found if parquet_of(list(folder.rglob("*.parquet")))), None)


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    from huggingface_hub import constants

    kept = "; expected a network that reaches the hub; what was fetched is kept"
    try:
        yield
    except subprocess.TimeoutExpired as error:
        raise DataError(f"cannot load data set {name}: {too_slow(error.timeout)}{kept}") from error
    except HubClientError as error:
        if error.kind == "GatedRepoError":
            raise DataError(
                f"data set {name} is gated: accept its terms at {constants.ENDPOINT}/datasets/{name}, then log in "
                "(`hf auth login`, or HF_TOKEN)"
            ) from error
        raise DataError(f"cannot load data set {name}: {reason_of(error)}{kept}") from error


# --- reading a split


def _choose(name: str, splits: list[str]) -> tuple[str | None, str]:
    if len(splits) == 1:
        return None, splits[0]
    val = next((split for split in _VAL_NAMES if split in splits), None)
    if val is None:
        raise DataError(f"data set {name} has splits {', '.join(splits)}: expected one of {', '.join(_VAL_NAMES)}")
    return ("train" if "train" in splits else None), val


def _columns(name: str, rows: "datasets.Dataset") -> tuple[str, str, tuple[str, ...]]:
    """The image column and the label column, and a line for each kind of which there are others."""
    import datasets

    features = rows.features
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    images += [column for column, feature in features.items() if isinstance(feature, dict) and "bytes" in feature]
    if not images:
        raise DataError(f"data set {name} has columns {', '.join(features)}: expected one of images")
    labels = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    integers = [column for column in _INTEGER_LABELS if "int" in str(getattr(features.get(column), "dtype", ""))]
    labels += [column for column in integers if column not in labels]
    if not labels:
        expected = f"a ClassLabel, or integers named {', '.join(_INTEGER_LABELS)}"
        raise DataError(f"data set {name} has columns {', '.join(features)}: expected {expected}")
    others = tuple(
        f"data set {name} has several columns of {what}, {', '.join(columns)}: {columns[0]} is taken"
        for what, columns in (("images", images), ("labels", labels))
        if len(columns) > 1
    )
    return images[0], labels[0], others


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
    notes: tuple[str, ...] = (),
) -> Split:
    import datasets

    if labels.max() >= len(classes):
        raise DataError(
            f"data set {data} [{part}] has label {labels.max()}: expected below {len(classes)}, its classes"
        )
    # Encoded bytes: decoding is for Split.image, and the fingerprint is of what is stored.
    encoded = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False)).with_format(None)
    ids = tuple(f"{part}[{index}]" for index in range(len(rows)))
    mode = getattr(rows.features[image], "mode", None)
    return Split(name, classes, labels, ids, RowSource(encoded, image, mode), notes)
