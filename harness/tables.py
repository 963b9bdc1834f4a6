"""Tables from records alone: accuracy with its spread over trials, and size. Imports neither torch nor coremltools.

Rows are plain numbers under stable names; the readable formats choose and word some of them.
"""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tabulate import tabulate

from harness.records import Record

Kind = Literal["accuracy", "size"]
Format = Literal["md", "csv", "json", "latex"]
Row = dict[str, Any]

_PUBLISHED = Path(__file__).parents[1] / "results" / "published_pruning.csv"
_IMAGENET_CLASSES = 1000


def render(records: Iterable[Record], kind: Kind = "accuracy", format: Format = "md") -> str:
    """The tables of `records`, one a suite, in one of the formats; csv and json hold every row in one."""
    table = rows(records)
    if format == "json":
        return json.dumps(table, indent=2)
    if format == "csv":
        return pd.DataFrame(table).to_csv(index=False).rstrip("\n")
    worded = _accuracy_columns if kind == "accuracy" else _size_columns
    style = "latex_booktabs" if format == "latex" else "github"
    parts = []
    for suite in dict.fromkeys(row["suite"] for row in table):
        of_suite = [row for row in table if row["suite"] == suite]
        several_data_sets = len({row["data"] for row in of_suite}) > 1
        shown = [worded(row) | ({"Data": row["data"]} if several_data_sets else {}) for row in of_suite]
        body = tabulate(shown, headers="keys", tablefmt=style, disable_numparse=True)
        parts.append(f"{_caption(suite, of_suite, format)}\n\n{body}")
    return "\n\n".join(parts)


def rows(records: Iterable[Record]) -> list[Row]:
    """One row a network and config, from the newest state of each, trials together; the baseline first.

    Accuracies are percentages, with the sample standard deviation over trials (None for one trial). Ratios are bytes of
    weight.bin, dense over sparse. None stands where nothing was measured.
    """
    published = _published_ratios()
    by_subject: dict[tuple[str, ...], list[Record]] = {}
    for record in _newest_subjects(records):
        by_subject.setdefault((record.suite, record.network.name, record.data.spec), []).append(record)
    table = []
    for group in by_subject.values():
        configs = _newest_configs(group)
        dense = next((r for r in configs.get(("dense", "Float16"), []) if r.package), None)
        order = sorted(configs, key=lambda config: config[0] != "dense")
        table += [_row(configs[config], dense, published) for config in order]
    return table


def _newest_subjects(records: Iterable[Record]) -> list[Record]:
    """Records of other weights or other images must not stand beside each other: the newest of each name stays."""
    ordered = sorted(records, key=lambda record: record.provenance.created)
    newest = {(r.suite, r.network.name, r.data.spec): r.subject_key for r in ordered}
    return [r for r in ordered if newest[r.suite, r.network.name, r.data.spec] == r.subject_key]


def _newest_configs(records: list[Record]) -> dict[tuple[str, str], list[Record]]:
    """All trials of the newest version of each config, by algorithm and config name. Takes records in time's order."""
    newest = {(r.pruning.algorithm, r.pruning.config): r.config_key for r in records}
    return {
        config: sorted((r for r in records if r.config_key == key), key=lambda r: r.trial)
        for config, key in newest.items()
    }


def _row(trials: list[Record], dense: Record | None, published: dict[tuple[str, str], float]) -> Row:
    first = trials[0]
    measured = [trial for trial in trials if trial.predictions and trial.package and trial.runtime]
    top1 = [100 * t.predictions.top1 for t in measured if t.predictions]
    top5 = [100 * t.predictions.top5_accuracy for t in measured if t.predictions]
    weight_bytes = [t.package.weight_bytes for t in measured if t.package]
    mean_bytes = _mean(weight_bytes)
    ratio = dense.package.weight_bytes / mean_bytes if dense and dense.package and mean_bytes else None
    reference = published.get((first.network.title, _published_config(first)))
    if first.data.classes != _IMAGENET_CLASSES:
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
        "published_compression_ratio": reference,
        "top1_mean": _mean(top1),
        "top1_std": _sample_std(top1),
        "top5_mean": _mean(top5),
        "top5_std": _sample_std(top5),
        "trials": len(measured),
        "failed_trials": len(trials) - len(measured),
        "images": len(measured[0].predictions.labels) if measured and measured[0].predictions else 0,
        "skipped_images": len(first.data.skipped),
        "scope": (measured or trials)[0].pruning.scope,
        "whole_model_sparsity": _mean([t.package.whole_model_sparsity for t in measured if t.package]),
        "weight_bytes": mean_bytes,
        "package_bytes": _mean([t.package.package_bytes for t in measured if t.package]),
        "runtime": measured[0].runtime.name if measured and measured[0].runtime else None,
        "compute_units": measured[0].runtime.compute_units if measured and measured[0].runtime else None,
    }


def _accuracy_columns(row: Row) -> dict[str, str]:
    return {
        "Model Name": row["model_title"],
        "Config": row["config"],
        "Optimization Algorithm": row["algorithm_title"],
        "Compression Ratio": _number(row["compression_ratio"]),
        "Accuracy": _accuracy(row),
        "Pruned Scope": row["scope"],
        "Whole-Model Sparsity": _percent(row["whole_model_sparsity"]),
        "Images": f"{row['images']:,}" + (f" ({row['skipped_images']} skipped)" if row["skipped_images"] else ""),
        "Runtime": row["runtime"] or "-",
    }


def _size_columns(row: Row) -> dict[str, str]:
    ratio, published = row["compression_ratio"], row["published_compression_ratio"]
    return {
        "Model Name": row["model_title"],
        "Config": row["config"],
        "Optimization Algorithm": row["algorithm_title"],
        "weight.bin (bytes)": _number(row["weight_bytes"], ",.0f"),
        "Package (bytes)": _number(row["package_bytes"], ",.0f"),
        "Compression Ratio": _number(ratio, ".3f"),
        "Published Ratio": _number(published),
        "Difference": _number(ratio - published if ratio and published else None, "+.3f"),
        "Pruned Scope": row["scope"],
        "Whole-Model Sparsity": _percent(row["whole_model_sparsity"]),
    }


def _caption(suite: str, table: list[Row], format: Format) -> str:
    data = " and ".join(dict.fromkeys(row["data"] for row in table))
    text = f"Suite {suite}: top-1 in % on {data}, mean and standard deviation over trials that differ in data order."
    if any(row["runtime"] == "portable" for row in table):
        text += " Runtime `portable` executes the Core ML package on the CPU; its numbers are not Core ML's."
    return f"% {text}" if format == "latex" else text


def _accuracy(row: Row) -> str:
    if row["top1_mean"] is None:
        return "failed"
    spread = "" if row["top1_std"] is None else f" ± {row['top1_std']:.2f}"
    failed = f" ({row['failed_trials']} failed)" if row["failed_trials"] else ""
    return f"{row['top1_mean']:.2f}{spread}{failed}"


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def _mean(values: list[float] | list[int]) -> float | None:
    return statistics.fmean(values) if values else None


def _sample_std(values: list[float]) -> float | None:
    """With n - 1 in the denominator: three trials are a sample."""
    return statistics.stdev(values) if len(values) > 1 else None


def _published_config(record: Record) -> str:
    sparsity = record.pruning.sparsity
    return f"Unstructured Sparsity {100 * sparsity:g}%" if sparsity else "Float16" if sparsity == 0 else ""


def _published_ratios() -> dict[tuple[str, str], float]:
    table = pd.read_csv(_PUBLISHED)
    return {(row.model, row.config): row.compression_ratio for row in table.itertuples()}
