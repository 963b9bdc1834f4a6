"""What an app reads in a package besides its program, as a suite's `[app]` or `package save` asks for it.

Imports neither torch nor coremltools.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coreml_prune_bench.core.errors import SuiteError
from coreml_prune_bench.models.paths import expanded
from coreml_prune_bench.models.weights_licence import licence_of

_MOST_LETTERS, _MOST_BYTES = 1_000, 4 << 20
"""Of a label, and of a file of labels."""
_MOST_SIZES = 128
"""Core ML's own limit of enumerated shapes."""


@dataclass(frozen=True)
class AppContent:
    """labels: the classes' names, in order; none where the package returns scores. softmax: whether scores become
    probabilities. texts: of `name`, `author`, `license`, `description` and `version`, those that are said. image_sizes:
    sides in pixels that it takes besides its own."""

    labels: tuple[str, ...]
    softmax: bool
    texts: Mapping[str, str]
    image_sizes: tuple[int, ...] = ()

    @property
    def inputs(self) -> dict[str, Any]:
        """What a key covers."""
        return asdict(self)

    def label_of(self, classes: Sequence[str]) -> dict[str, str] | None:
        """By class of the data, its label; None where the package has none."""
        return dict(zip(classes, self.labels, strict=True)) if self.labels else None


class App(BaseModel):
    """A suite's `[app]`.

    labels: true for the data's class names, or a file with one a line, in the order of the data's classes.
    softmax: whether scores become probabilities; None: where there are labels, as Vision expects it.
    image_sizes: sides in pixels of the images that packages take, besides the size that they are built for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: bool | str = False
    softmax: bool | None = None
    image_sizes: tuple[Annotated[int, Field(ge=16, le=1024)], ...] = Field((), max_length=_MOST_SIZES)
    name: str | None = None
    author: str | None = None
    license: str | None = None
    description: str | None = None
    version: str | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"it is empty; say one of {', '.join(type(self).model_fields)}")
        return self

    def in_folder(self, folder: Path) -> Self:
        """With the file of labels taken relative to `folder`."""
        if isinstance(self.labels, bool):
            return self
        return self.model_copy(update={"labels": str(folder / expanded(self.labels))})

    def content(self, classes: Sequence[str]) -> AppContent:
        """For packages of these classes. Raises SuiteError where labels cannot be read or are not one a class."""
        if isinstance(self.labels, str):
            labels = read_labels(expanded(self.labels), len(classes))
        else:
            labels = tuple(classes) if self.labels else ()
            _refuse_twins(labels, "the data's classes")
        texts = {name: text for name in _TEXTS if (text := getattr(self, name)) is not None}
        softmax = bool(labels) if self.softmax is None else self.softmax
        return AppContent(labels, softmax, texts, tuple(sorted(set(self.image_sizes))))


_TEXTS = ("name", "author", "license", "description", "version")


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """A file's labels, one a line. Raises SuiteError unless it has one for each class, all different."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES >> 20} MiB")
        labels = tuple(line.strip() for line in content.decode("utf-8-sig").rstrip().splitlines())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SuiteError(f"labels {path}: {reason}; expected a file with a label a line") from error
    if len(labels) != classes:
        raise SuiteError(f"labels {path} has {len(labels):,} lines, expected {classes:,}: a label for each class")
    _refuse_twins(labels, f"labels {path}")
    for number, label in enumerate(labels, start=1):
        if not label or not label.isprintable() or len(label) > _MOST_LETTERS:
            raise SuiteError(f"labels {path}: line {number} is {label[:40]!r}, expected a label")
    return labels


def _refuse_twins(labels: Sequence[str], told: str) -> None:
    """A dictionary of probabilities by label has each of them once."""
    if not labels:
        return
    label, count = Counter(labels).most_common(1)[0]
    if count > 1:
        raise SuiteError(f"{told}: {label!r} stands there {count} times, expected labels that tell classes apart")


def told_of(
    network: str, algorithm: str, config: str, sparsity: float | None, weights: str | None, scope: str | None = None
) -> dict[str, str]:
    """What a package says of itself: network, algorithm and config in words, sparsity as a fraction, this project.

    weights: what identifies pre-trained ones; None where they were trained here. What is not known is left out.
    """
    found = {
        "network": network,
        "algorithm": algorithm,
        "config": config,
        "sparsity": None if sparsity is None else f"{sparsity:g}",
        "scope": scope,
        "weights": weights,
        "weights_license": licence_of(weights) if weights else None,
        "version": version("coreml-prune-bench"),
    }
    return {name: text for name, text in found.items() if text is not None}
