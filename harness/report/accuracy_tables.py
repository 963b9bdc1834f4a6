"""Tables from records alone: accuracy with its errors, size, and the published values beside ours.

A column is one entry of `COLUMNS`: its name in CSV and JSON, its value, and how readers see it in which table. Imports
neither torch nor coremltools, nor pandas, which would take longer than the tables.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from coreml_prune_bench.models.imagenet import IMAGENET_CLASSES, IMAGENET_VALIDATION_IMAGES
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.chance import chance_levels
from coreml_prune_bench.report.config_rows import ConfigRow, beside_published, config_rows, mean, sample_std
from coreml_prune_bench.report.formats import (
    Column,
    Format,
    cells,
    number,
    percent,
    values,
    write_cells,
    write_values,
)

Kind = Literal["accuracy", "size"]
Table = Literal["accuracy", "size", "comparison"]

_SHOWN = 8


class Spread(NamedTuple):
    """An accuracy over trials, in %: None where every trial failed. std: None for one trial. failed: how many."""

    mean: float | None
    std: float | None
    failed: int = 0


def spread(found: Spread) -> str:
    """Such as "75.00 ± 0.12 (1 failed)"."""
    deviation = "" if found.std is None else f" ± {found.std:.2f}"
    failed = f" ({found.failed} failed)" if found.failed else ""
    return f"{found.mean:.2f}{deviation}{failed}" if found.mean is not None else "failed"


def _of_record(value: Callable[[Record], Any]) -> Callable[[ConfigRow], Any]:
    """A value that every trial has, failed or not; None where there is no trial."""
    return lambda row: value(row.first) if row.first else None


def _of_published(value: Callable[[Any], Any]) -> Callable[[ConfigRow], Any]:
    return lambda row: value(row.published) if row.published else None


def _difference(ours: float | None, published: float | None) -> float | None:
    return None if ours is None or published is None else ours - published


def _top1_difference(row: ConfigRow) -> float | None:
    """Where both are of the same images; the ratio is of the packages alone."""
    published = row.published if why_not_comparable(row) is None else None
    return _difference(mean(row.top1), published.top1_mean if published else None)


def _ratio_difference(row: ConfigRow) -> float | None:
    return _difference(row.compression_ratio, row.published.compression_ratio if row.published else None)


def standard_error(row: ConfigRow) -> float | None:
    """Of the mean accuracy in %, in points: binomial over images, sqrt(p (1 - p) / n)."""
    percentage = mean(row.top1)
    return None if percentage is None else math.sqrt(percentage * (100 - percentage) / len(row.labels))


def _failed(row: ConfigRow) -> int:
    return len(row.trials) - len(row.measured)


def _accuracy(row: ConfigRow) -> str:
    return spread(Spread(mean(row.top1), sample_std(row.top1), _failed(row))) if row.trials else "not measured"


def _published_accuracy(row: ConfigRow) -> str:
    return spread(Spread(row.published.top1_mean, row.published.top1_std)) if row.published else "-"


def _images(row: ConfigRow) -> str | None:
    if row.first is None:
        return None
    skipped = len(row.first.data.skipped)
    return f"{len(row.labels):,}" + (f" ({skipped} skipped)" if skipped else "")


def _is_full_validation_set(row: ConfigRow) -> bool:
    """ImageNet-1k's validation set has 50 images of each class."""
    per_class = IMAGENET_VALIDATION_IMAGES // IMAGENET_CLASSES
    classes = row.first.data.classes if row.first else None
    return classes == IMAGENET_CLASSES and Counter(row.labels) == dict.fromkeys(range(IMAGENET_CLASSES), per_class)


def why_not_comparable(row: ConfigRow) -> str | None:
    """Why a measured row's accuracy has nothing to do with the published one, which is of ImageNet's validation set."""
    if row.published is None or row.first is None or not row.measured:
        return None
    data = row.first.data
    if data.classes != IMAGENET_CLASSES:
        return f"{data.classes:,} classes"
    if not _is_full_validation_set(row):
        skipped = f", {len(data.skipped):,} skipped" if data.skipped else ""
        return f"{len(row.labels):,} images{skipped}"
    return None if data.image_size == _PUBLISHED_SIZE else f"images of {data.image_size} pixels"


def _full_in_words(row: ConfigRow) -> str | None:
    return None if row.first is None else "yes" if _is_full_validation_set(row) else "no"


def _scope(row: ConfigRow) -> str | None:
    trials = row.measured or row.trials
    return trials[0].pruning.scope if trials else None


def _storage(row: ConfigRow) -> str | None:
    """How many pruned layers are stored in which form, such as "52 sparse + palettized"; empty if none is pruned."""
    if not row.measured:
        return None
    forms = Counter(layer.storage for layer in row.packages[0].layers)
    return ", ".join(f"{count} {form}" for form, count in forms.most_common())


_EVERY: tuple[Table, ...] = ("accuracy", "size", "comparison")
_MEASURED: tuple[Table, ...] = ("accuracy", "comparison")
_SIZES: tuple[Table, ...] = ("size", "comparison")

COLUMNS: list[Column[ConfigRow]] = [
    Column("suite", lambda row: row.suite),
    Column("data", lambda row: row.data),
    Column("model", _of_record(lambda record: record.network.name)),
    Column("model_title", lambda row: row.title, "Model Name", tables=_EVERY, place=1),
    Column("config", lambda row: row.config, "Config", tables=_EVERY, place=2),
    Column("algorithm", _of_record(lambda record: record.pruning.algorithm)),
    Column("algorithm_title", lambda row: row.algorithm_title, "Optimization Algorithm", tables=_EVERY, place=3),
    Column("package_format", lambda row: row.package_format),
    Column("sparsity", lambda row: row.sparsity),
    Column(None, lambda row: row.compression_ratio, "Compression Ratio", number(), ("accuracy",), 4),
    Column("compression_ratio", lambda row: row.compression_ratio, "Compression Ratio", number(".3f"), _SIZES, 9),
    Column(
        "published_compression_ratio",
        _of_published(lambda published: published.compression_ratio),
        "Published Ratio",
        number(),
        _SIZES,
        10,
    ),
    Column(None, _accuracy, "Accuracy", tables=_MEASURED, place=5),
    Column("top1_mean", lambda row: mean(row.top1)),
    Column("top1_std", lambda row: sample_std(row.top1)),
    Column("top1_stderr", standard_error, "Standard Error", number(), _MEASURED, 16),
    Column(None, _published_accuracy, "Published Accuracy", tables=("comparison",), place=6),
    Column("published_top1_mean", _of_published(lambda published: published.top1_mean)),
    Column("published_top1_std", _of_published(lambda published: published.top1_std)),
    Column("top5_mean", lambda row: mean(row.top5)),
    Column("top5_std", lambda row: sample_std(row.top5)),
    Column("trials", lambda row: len(row.measured)),
    Column("failed_trials", lambda row: _failed(row) if row.trials else None),
    Column(None, _images, "Images", tables=_MEASURED, place=15),
    Column("images", lambda row: len(row.labels)),
    Column("skipped_images", _of_record(lambda record: len(record.data.skipped))),
    Column(None, _full_in_words, "Full Validation Set", tables=("comparison",), place=17),
    Column("full_validation_set", _is_full_validation_set),
    Column("scope", _scope, "Pruned Scope", tables=_EVERY, place=13),
    Column(
        "whole_model_sparsity",
        lambda row: mean([package.whole_model_sparsity for package in row.packages]),
        "Whole-Model Sparsity",
        percent(),
        _EVERY,
        14,
    ),
    Column("storage", _storage, "Pruned Layers", tables=("size",), place=18),
    Column(
        "deployment_target",
        lambda row: row.packages[0].deployment_target if row.packages else None,
        "Deployment Target",
        tables=("size",),
        place=19,
    ),
    Column("weight_bytes", lambda row: row.weight_bytes, "weight.bin (bytes)", number(",.0f"), ("size",), 7),
    Column(
        "package_bytes",
        lambda row: mean([package.package_bytes for package in row.packages]),
        "Package (bytes)",
        number(",.0f"),
        ("size",),
        8,
    ),
    Column(None, _ratio_difference, "Difference", number("+.3f"), ("size",), 11),
    Column("package", lambda row: row.packages[0].path if row.packages else None),
    Column("runtime", lambda row: row.runtime and row.runtime.name, "Runtime", tables=_MEASURED, place=20),
    Column("compute_units", lambda row: row.runtime and row.runtime.compute_units),
]
"""What a row says, sizes in bytes, accuracies in %; None where nothing was measured."""

_PUBLISHED_SIZE = 224
"""Pixels of a side, of what the published networks take."""

COMPARISON_COLUMNS: list[Column[ConfigRow]] = [
    *COLUMNS,
    Column("measured", lambda row: bool(row.top1)),
    Column("top1_difference", _top1_difference, "Accuracy Difference", number("+.2f"), ("comparison",), 7),
    Column("not_comparable", why_not_comparable),
    Column("compression_ratio_difference", _ratio_difference, "Ratio Difference", number("+.3f"), ("comparison",), 12),
]
"""And how far that is from the published row beside it, ours minus theirs."""


def render(
    records: Iterable[Record], kind: Kind = "accuracy", format: Format = "md", *, width: int | None = None
) -> str:
    """The tables of `records`, one a suite, in one of the formats; csv and json hold every row in one.

    width: of a terminal that shows them.
    """

    def read(of_suite: list[ConfigRow]) -> list[dict[str, str]]:
        return worded(of_suite, kind)

    return render_by_suite(config_rows(records), COLUMNS, format, caption, read, width=width)


def rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The values of `COLUMNS` by name, a row a suite, network and config: what csv and json hold."""
    return [values(COLUMNS, row) for row in config_rows(records)]


def render_comparison(records: Iterable[Record], format: Format = "md", *, width: int | None = None) -> str:
    """Each row beside its published counterpart, as one table in one of the formats."""
    found = beside_published(config_rows(records))
    if format == "json" or format == "csv":
        return write_values([values(COMPARISON_COLUMNS, row) for row in found], format)
    text = f"{comparison_caption(found)}{runtime_note(found)}"
    return write_cells(worded(found, "comparison"), format, caption=text, width=width)


class OfSuite(Protocol):
    """A row of any of the tables that are made suite by suite."""

    @property
    def suite(self) -> str | None: ...
    @property
    def runtime(self) -> Any: ...


AnyRow = TypeVar("AnyRow", bound=OfSuite)


def render_by_suite(
    rows: Sequence[AnyRow],
    columns: Iterable[Column[AnyRow]],
    format: Format,
    caption: Callable[[list[AnyRow]], str],
    read: Callable[[list[AnyRow]], list[dict[str, str]]],
    *,
    width: int | None = None,
) -> str:
    """A table of each suite's rows under its caption; csv and json hold every row, as it is, in one.

    width: of a terminal that shows it.
    """
    if format == "json" or format == "csv":
        return write_values([values(columns, row) for row in rows], format)
    parts = []
    for suite in dict.fromkeys(row.suite for row in rows):
        of_suite = [row for row in rows if row.suite == suite]
        text = f"Suite {suite}: {caption(of_suite)}{runtime_note(of_suite)}"
        parts.append(write_cells(read(of_suite), format, caption=text, width=width))
    return "\n\n".join(parts)


def worded(rows: Sequence[ConfigRow], table: Table) -> list[dict[str, str]]:
    """The rows as a reader sees them, by header; with suite, data, preprocessing and format where they differ."""
    columns = list(COMPARISON_COLUMNS)
    if len({row.suite for row in rows if row.suite}) > 1:
        columns.append(Column(None, lambda row: row.suite, "Suite", tables=(table,)))
    if len({row.data for row in rows if row.data}) > 1:
        columns.append(Column(None, lambda row: row.data, "Data", tables=(table,)))
    if differ_in_view(rows):
        columns.append(Column(None, view_of, "Preprocessing", tables=(table,)))
    if len({row.package_format for row in rows if row.package_format}) > 1:
        columns.append(Column(None, lambda row: row.package_format, "Package Format", tables=(table,), place=3))
    return [cells(columns, row, table) for row in rows]


def caption(rows: Sequence[ConfigRow]) -> str:
    """What a reader has to know of the rows."""
    data = " and ".join(dict.fromkeys(row.data for row in rows if row.data))
    return " ".join(
        [
            f"top-1 in % on {data}, mean and standard deviation over trials that differ in data order. Standard Error: "
            "of that mean, over images; trials see the same images and do not make it smaller.",
            *(
                f"WARNING: {line}"
                for line in [*chance_levels(row.first for row in rows if row.first), *not_alike(rows)]
            ),
        ]
    )


def view_of(row: ConfigRow) -> str | None:
    """Which part of an image its network saw, in short."""
    return row.first.data.preprocessing.in_short() if row.first else None


def differ_in_view(rows: Iterable[ConfigRow]) -> bool:
    """Whether rows of one network on one data set saw other parts of its images; what networks see is their own."""
    views = {(row.suite, row.title, row.data, view_of(row)) for row in rows if row.first}
    return len({found[:-1] for found in views}) < len(views)


def not_alike(rows: Iterable[ConfigRow]) -> list[str]:
    """A line for each data set of which rows stand side by side that are not of the same images."""
    by_data: dict[str, list[Record]] = {}
    for row in rows:
        if row.first:
            by_data.setdefault(row.first.data.spec, []).append(row.first)
    lines = []
    for spec, records in by_data.items():
        newest = max(records, key=lambda record: record.provenance.created).data.fingerprint
        others = list(dict.fromkeys(f"{r.network.title}, {r.config}" for r in records if r.data.fingerprint != newest))
        if others:
            more = f"; and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            names = "; ".join(others[:_SHOWN])
            lines.append(f"{names}{more}: measured on other images than those that {spec} has in the newest rows.")
    return lines


def comparison_caption(rows: Sequence[ConfigRow]) -> str:
    """The same of rows beside the published ones."""
    return (
        "Each row beside the published one of the same network and sparsity, which MagnitudePruner pruned: "
        f"{caption(rows)} Full Validation Set: measured on all "
        f"{IMAGENET_VALIDATION_IMAGES:,} images of ImageNet's {IMAGENET_CLASSES:,} classes; the accuracy of a row with "
        f"`no` cannot be compared with a published one{_told_not_comparable(rows)}."
    )


def _told_not_comparable(rows: Sequence[ConfigRow]) -> str:
    """Which accuracies are not, and why, so that their differences are left out."""
    found = {row.data: why for row in rows if (why := why_not_comparable(row)) is not None}
    if not found:
        return ""
    told = ", and no difference is given: " + ", ".join(f"{data} has {why}" for data, why in found.items())
    heads = {row.first.data.classes for row in rows if row.first} - {IMAGENET_CLASSES}
    if heads:
        told += f". Ratios differ by the head, too: the published ones are of {IMAGENET_CLASSES:,} classes"
    return told


def runtime_note(rows: Iterable[OfSuite]) -> str:
    if not any(row.runtime and row.runtime.name == "portable" for row in rows):
        return ""
    return " Runtime `portable` executes the Core ML package on the CPU; its numbers are not Core ML's."
