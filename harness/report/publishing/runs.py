"""A record as a run of an experiment tracker: what was asked for, and the numbers that came of it."""

from dataclasses import dataclass

from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.report.config_rows import ConfigRow
from coreml_prune_bench.report.formats import values
from coreml_prune_bench.report.results import TRIAL_COLUMNS
from coreml_prune_bench.report.row_names import row_name

_PARAMETERS = (
    "suite",
    "data",
    "model",
    "algorithm",
    "config",
    "trial",
    "sparsity",
    "runtime",
    "compute_units",
    "package",
)
_METRICS = (
    "top1",
    "top5",
    "images",
    "skipped_images",
    "weight_bytes",
    "package_bytes",
    "whole_model_sparsity",
    "build_seconds",
    "evaluate_seconds",
)


@dataclass(frozen=True)
class TrackedRun:
    """One measured record. key: the record's. experiment: its suite. parameters, metrics: by the names of data frames,
    accuracies in %; `compression_ratio` is dense over this one. created: ISO 8601."""

    key: str
    experiment: str
    name: str
    parameters: dict[str, str]
    metrics: dict[str, float]
    created: str
    git_commit: str | None


def runs_of(rows: list[ConfigRow]) -> list[TrackedRun]:
    """A run for each measured trial of these rows."""
    return [_run(row, record) for row in rows for record in row.measured]


def _run(row: ConfigRow, record: Record) -> TrackedRun:
    told = values(TRIAL_COLUMNS, record)
    ratio = {} if row.compression_ratio is None else {"compression_ratio": float(row.compression_ratio)}
    trial = f", trial {record.trial + 1}" if len(row.trials) > 1 else ""
    return TrackedRun(
        key=record.key,
        experiment=record.suite,
        name=f"{row_name(row)}{trial}",
        parameters={name: str(told[name]) for name in _PARAMETERS if told[name] is not None},
        metrics={name: float(told[name]) for name in _METRICS if told[name] is not None} | ratio,
        created=record.provenance.created,
        git_commit=record.provenance.git_commit,
    )
