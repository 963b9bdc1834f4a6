"""Tables from records alone: accuracy with its errors, size, and the published values beside ours.

Imports neither torch nor coremltools, nor pandas, which would take longer than the tables. Rows are plain numbers
under stable names; the readable formats choose and word some of them.
"""

import csv
import io
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal

from tabulate import tabulate

from coreml_prune_bench.published.table import (
    IMAGENET_CLASSES,
    IMAGENET_VALIDATION_IMAGES,
    PublishedRow,
    published_counterpart,
    read_table,
)
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.latest import newest_trials, of_own_suite

Kind = Literal["accuracy", "size"]
Format = Literal["md", "csv", "json", "latex"]
Row = dict[str, Any]


def render(records: Iterable[Record], kind: Kind = "accuracy", format: Format = "md") -> str:
    """The tables of `records`, one a suite, in one of the formats; csv and json hold every row in one."""
    return render_by_suite(rows(records), format, caption, lambda of_suite: worded(of_suite, kind))


def render_by_suite(
    table: list[Row],
    format: Format,
    caption: Callable[[list[Row]], str],
    columns: Callable[[list[Row]], list[dict[str, str]]],
) -> str:
    """A table of each suite's rows under its caption; csv and json hold every row, as it is, in one."""
    if format in ("json", "csv"):
        return _machine_readable(table, format)
    parts = []
    for suite in dict.fromkeys(row["suite"] for row in table):
        of_suite = [row for row in table if row["suite"] == suite]
        text = f"Suite {suite}: {caption(of_suite)}{_runtime_note(of_suite)}"
        parts.append(_readable(text, columns(of_suite), format))
    return "\n\n".join(parts)


def render_comparison(records: Iterable[Record], format: Format = "md") -> str:
    """`compared` as one table in one of the formats."""
    table = compared(rows(records))
    if format in ("json", "csv"):
        return _machine_readable(table, format)
    text = f"{comparison_caption(table)}{_runtime_note(table)}"
    return _readable(text, worded(table, "comparison"), format)


def rows(records: Iterable[Record]) -> list[Row]:
    """One row a network and config, from the newest state of each, trials together; the baseline first.

    Accuracies are percentages, with the sample standard deviation over trials (None for one trial) and the standard
    error over images. Ratios are bytes of weight.bin, dense over sparse, where the suite or another one of the folder
    measured the dense network. None stands where nothing was measured.
    """
    published = read_table()
    newest = newest_trials(records)
    built_dense = [trials for trials in newest if trials[0].pruning.algorithm == "dense" and trials[0].package]
    by_subject: dict[tuple[str, str], list[list[Record]]] = {}
    for trials in newest:
        by_subject.setdefault((trials[0].suite, trials[0].subject_key), []).append(trials)
    table = []
    for (_, subject_key), group in by_subject.items():
        group.sort(key=lambda trials: trials[0].pruning.algorithm != "dense")
        dense = of_own_suite(group[0], [trials for trials in built_dense if trials[0].subject_key == subject_key])
        table += [_row(trials, dense[-1][0] if dense else None, published) for trials in group]
    return table


def compared(table: list[Row]) -> list[Row]:
    """`rows`, each with how far it is from its published counterpart, in the order of networks and sparsities.

    The counterpart is of the same network, with the same share of single weights zero in every pruned layer, whatever
    the algorithm. A published row that is nobody's counterpart is a row of its own: not measured.
    """
    published = read_table()
    ours = [_with_differences(row) for row in table]
    met = {(row["model_title"], row["sparsity"]) for row in ours if row["published_top1_mean"] is not None}
    absent = [_not_measured(row, list(ours[0])) for row in published if (row.model, row.sparsity) not in met]
    titles = list(dict.fromkeys([*(row.model for row in published), *(row["model_title"] for row in ours)]))
    return sorted([*ours, *absent], key=lambda row: (titles.index(row["model_title"]), _or_infinite(row["sparsity"])))


def _row(trials: list[Record], dense: Record | None, published: list[PublishedRow]) -> Row:
    first = trials[0]
    measured = [trial for trial in trials if trial.predictions and trial.package and trial.runtime]
    top1 = [100 * t.predictions.top1 for t in measured if t.predictions]
    top5 = [100 * t.predictions.top5_accuracy for t in measured if t.predictions]
    labels = measured[0].predictions.labels if measured and measured[0].predictions else ()
    weight_bytes = [t.package.weight_bytes for t in measured if t.package]
    mean_bytes = mean(weight_bytes)
    ratio = dense.package.weight_bytes / mean_bytes if dense and dense.package and mean_bytes else None
    pruning = first.pruning
    reference = published_counterpart(published, first.network.title, pruning.sparsity, pruning.settings)
    if first.data.classes != IMAGENET_CLASSES:
        reference = None  # another head, another size
    return {
        "suite": first.suite,
        "data": first.data.spec,
        "model": first.network.name,
        "model_title": first.network.title,
        "config": first.pruning.config,
        "algorithm": first.pruning.algorithm,
        "algorithm_title": first.pruning.title,
        "sparsity": first.pruning.sparsity,
        "compression_ratio": ratio,
        "published_compression_ratio": reference.compression_ratio if reference else None,
        "top1_mean": mean(top1),
        "top1_std": sample_std(top1),
        "top1_stderr": _standard_error(mean(top1), len(labels)),
        "published_top1_mean": reference.top1_mean if reference else None,
        "published_top1_std": reference.top1_std if reference else None,
        "top5_mean": mean(top5),
        "top5_std": sample_std(top5),
        "trials": len(measured),
        "failed_trials": len(trials) - len(measured),
        "images": len(labels),
        "skipped_images": len(first.data.skipped),
        "full_validation_set": _is_full_validation_set(labels, first.data.classes),
        "scope": (measured or trials)[0].pruning.scope,
        "whole_model_sparsity": mean([t.package.whole_model_sparsity for t in measured if t.package]),
        "storage": _storage(measured[0]) if measured else None,
        "deployment_target": measured[0].package.deployment_target if measured and measured[0].package else None,
        "weight_bytes": mean_bytes,
        "package_bytes": mean([t.package.package_bytes for t in measured if t.package]),
        "runtime": measured[0].runtime.name if measured and measured[0].runtime else None,
        "compute_units": measured[0].runtime.compute_units if measured and measured[0].runtime else None,
    }


def _storage(record: Record) -> str:
    """How many pruned layers are stored in which form, such as "52 sparse + palettized"; empty if none is pruned."""
    forms = Counter(layer.storage for layer in record.package.layers) if record.package else Counter()
    return ", ".join(f"{count} {form}" for form, count in forms.most_common())


def _with_differences(row: Row) -> Row:
    return row | {
        "measured": row["top1_mean"] is not None,
        "top1_difference": _difference(row["top1_mean"], row["published_top1_mean"]),
        "compression_ratio_difference": _difference(row["compression_ratio"], row["published_compression_ratio"]),
    }


def _not_measured(published: PublishedRow, names: list[str]) -> Row:
    """A row of those names with nothing of ours in it."""
    return dict.fromkeys(names) | {
        "model_title": published.model,
        "config": published.config,
        "algorithm_title": published.algorithm,
        "sparsity": published.sparsity,
        "published_compression_ratio": published.compression_ratio,
        "published_top1_mean": published.top1_mean,
        "published_top1_std": published.top1_std,
        "trials": 0,
        "images": 0,
        "full_validation_set": False,
        "measured": False,
    }


def _machine_readable(table: list[Row], format: Literal["json", "csv"]) -> str:
    if format == "json":
        return json.dumps(table, indent=2)
    text = io.StringIO()
    writer = csv.DictWriter(text, table[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().rstrip("\n")


def _readable(text: str, table: list[dict[str, str]], format: Format) -> str:
    style = "latex_booktabs" if format == "latex" else "github"
    body = tabulate(table, headers="keys", tablefmt=style, disable_numparse=True)
    return f"{'% ' if format == 'latex' else ''}{text}\n\n{body}"


def worded(table: list[Row], kind: Kind | Literal["comparison"]) -> list[dict[str, str]]:
    """The rows as a reader sees them, by column; with suite and data where rows differ in them."""
    columns = {"accuracy": _accuracy_columns, "size": _size_columns, "comparison": _comparison_columns}[kind]
    differing = [name for name in ("suite", "data") if len({row[name] for row in table if row[name]}) > 1]
    return [columns(row) | {name.capitalize(): row[name] or "-" for name in differing} for row in table]


def _accuracy_columns(row: Row) -> dict[str, str]:
    return {
        "Model Name": row["model_title"],
        "Config": row["config"],
        "Optimization Algorithm": row["algorithm_title"],
        "Compression Ratio": number(row["compression_ratio"]),
        "Accuracy": accuracy(row),
        "Pruned Scope": row["scope"],
        "Whole-Model Sparsity": _percent(row["whole_model_sparsity"]),
        "Images": _images(row),
        "Standard Error": number(row["top1_stderr"]),
        "Runtime": row["runtime"] or "-",
    }


def _size_columns(row: Row) -> dict[str, str]:
    ratio, published = row["compression_ratio"], row["published_compression_ratio"]
    return {
        "Model Name": row["model_title"],
        "Config": row["config"],
        "Optimization Algorithm": row["algorithm_title"],
        "weight.bin (bytes)": number(row["weight_bytes"], ",.0f"),
        "Package (bytes)": number(row["package_bytes"], ",.0f"),
        "Compression Ratio": number(ratio, ".3f"),
        "Published Ratio": number(published),
        "Difference": number(_difference(ratio, published), "+.3f"),
        "Pruned Scope": row["scope"],
        "Whole-Model Sparsity": _percent(row["whole_model_sparsity"]),
        "Pruned Layers": row["storage"] or "-",
        "Deployment Target": row["deployment_target"] or "-",
    }


def _comparison_columns(row: Row) -> dict[str, str]:
    absent = row["suite"] is None
    return {
        "Model Name": row["model_title"],
        "Config": row["config"],
        "Optimization Algorithm": row["algorithm_title"],
        "Accuracy": "not measured" if absent else accuracy(row),
        "Published Accuracy": number(row["published_top1_mean"]) + spread(row["published_top1_std"]),
        "Accuracy Difference": number(row["top1_difference"], "+.2f"),
        "Compression Ratio": number(row["compression_ratio"], ".3f"),
        "Published Ratio": number(row["published_compression_ratio"]),
        "Ratio Difference": number(row["compression_ratio_difference"], "+.3f"),
        "Pruned Scope": row["scope"] or "-",
        "Whole-Model Sparsity": _percent(row["whole_model_sparsity"]),
        "Images": "-" if absent else _images(row),
        "Standard Error": number(row["top1_stderr"]),
        "Full Validation Set": "-" if absent else "yes" if row["full_validation_set"] else "no",
        "Runtime": row["runtime"] or "-",
    }


def caption(table: list[Row]) -> str:
    """What a reader has to know of the rows."""
    data = " and ".join(dict.fromkeys(row["data"] for row in table))
    return (
        f"top-1 in % on {data}, mean and standard deviation over trials that differ in data order. Standard Error: of "
        "that mean, over images; trials see the same images and do not make it smaller."
    )


def _runtime_note(table: list[Row]) -> str:
    if not any(row["runtime"] == "portable" for row in table):
        return ""
    return " Runtime `portable` executes the Core ML package on the CPU; its numbers are not Core ML's."


def comparison_caption(table: list[Row]) -> str:
    """The same of rows beside the published ones."""
    return (
        "Each row beside the published one of the same network and sparsity, which MagnitudePruner pruned: "
        f"{caption([row for row in table if row['suite']])} Full Validation Set: measured on all "
        f"{IMAGENET_VALIDATION_IMAGES:,} images of ImageNet's {IMAGENET_CLASSES:,} classes; the accuracy of a row with "
        "`no` cannot be compared with a published one."
    )


def accuracy(row: Row, prefix: str = "") -> str:
    """Mean and deviation over trials, and how many failed; of what the row holds under names with that prefix."""
    if row[f"{prefix}top1_mean"] is None:
        return "failed"
    failed = f" ({row[f'{prefix}failed_trials']} failed)" if row[f"{prefix}failed_trials"] else ""
    return f"{row[f'{prefix}top1_mean']:.2f}{spread(row[f'{prefix}top1_std'])}{failed}"


def spread(std: float | None) -> str:
    return "" if std is None else f" ± {std:.2f}"


def _images(row: Row) -> str:
    return f"{row['images']:,}" + (f" ({row['skipped_images']} skipped)" if row["skipped_images"] else "")


def number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def _difference(ours: float | None, published: float | None) -> float | None:
    return None if ours is None or published is None else ours - published


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


def mean(values: list[float] | list[int]) -> float | None:
    return statistics.fmean(values) if values else None


def sample_std(values: list[float]) -> float | None:
    """With n - 1 in the denominator: three trials are a sample."""
    return statistics.stdev(values) if len(values) > 1 else None


def _standard_error(percent: float | None, images: int) -> float | None:
    """Of an accuracy in %, in points: binomial, sqrt(p (1 - p) / n)."""
    return None if percent is None else math.sqrt(percent * (100 - percent) / images)


def _is_full_validation_set(labels: tuple[int, ...], classes: int) -> bool:
    """ImageNet-1k's validation set has 50 images of each class."""
    per_class = IMAGENET_VALIDATION_IMAGES // IMAGENET_CLASSES
    return classes == IMAGENET_CLASSES and Counter(labels) == dict.fromkeys(range(IMAGENET_CLASSES), per_class)
