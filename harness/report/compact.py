"""The tables of accuracy and size that a terminal shows: what one asks first, at 80 columns too."""

from collections.abc import Iterable, Sequence

from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.chance import chance_levels
from coreml_prune_bench.report.accuracy_tables import (
    differ_in_view,
    not_alike,
    runtime_note,
    standard_error,
    view_of,
)
from coreml_prune_bench.report.config_rows import ConfigRow, config_rows, mean
from coreml_prune_bench.report.formats import number
from coreml_prune_bench.report.terminal import fitted


def render_compact(records: Iterable[Record], width: int) -> str:
    """The tables of `records`, one a network of each suite, for a terminal of so many columns."""
    rows = config_rows(records)
    parts = []
    for suite in dict.fromkeys(row.suite for row in rows):
        of_suite = [row for row in rows if row.suite == suite]
        parts.append(fitted([], width, caption=_caption(of_suite)))
        by_subject: dict[str, list[dict[str, str]]] = {}
        for row in of_suite:
            by_subject.setdefault(_subject(row, view=differ_in_view(of_suite)), []).append(_cells(row))
        for subject, of_subject in by_subject.items():
            parts.append(fitted(of_subject, width, caption=subject, keep=of_subject[0]))
    return "\n\n".join(parts)


def _subject(row: ConfigRow, *, view: bool) -> str:
    """What the rows of one table have in common; with the view of images where they differ in it."""
    images = f"{len(row.labels):,} images of {row.data}" if row.measured else row.data
    return ", ".join(filter(None, (row.title, images, view_of(row) if view else None)))


def _cells(row: ConfigRow) -> dict[str, str]:
    return {
        "Config": row.config or "-",
        "Algorithm": row.algorithm_title or "-",
        "Top-1 ±": _accuracy(row),
        "Top-5": number(".1f")(mean(row.top5)),
        "Lost": number(".2f")(points_lost(row)),
        "MB": number()(None if row.weight_bytes is None else row.weight_bytes / 1e6),
        "Ratio": number()(row.compression_ratio),
    }


def _accuracy(row: ConfigRow) -> str:
    top1, error = mean(row.top1), standard_error(row)
    return "failed" if top1 is None or error is None else f"{top1:.2f} ± {error:.2f}"


def points_lost(row: ConfigRow) -> float | None:
    """Points of top-1 below the dense network, the mean over trials; None for that itself and where there is none."""
    dense = row.dense.predictions if row.dense else None
    ours = mean(row.top1)
    if dense is None or ours is None or (row.first and row.first.pruning.algorithm == "dense"):
        return None
    return 100 * dense.top1 - ours


def _caption(rows: Sequence[ConfigRow]) -> str:
    told = [
        f"Suite {rows[0].suite}: top-1 and top-5 in %, means over trials, ± the standard error over images; points of "
        f"top-1 lost against the dense network; MB of weights.{runtime_note(rows)}",
        *(f"WARNING: {line}" for line in [*chance_levels(row.first for row in rows if row.first), *not_alike(rows)]),
        "--wide shows every column.",
    ]
    return " ".join(told)
