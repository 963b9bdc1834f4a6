"""What the page draws: accuracy against size, distributions of latencies, sensitivities."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from coreml_prune_bench.core.escaping import one_line
from coreml_prune_bench.records.latency import LatencyRecord
from coreml_prune_bench.records.sensitivity import Sensitivity
from coreml_prune_bench.report import charts
from coreml_prune_bench.report.charts import Distribution, Draw, Point
from coreml_prune_bench.report.looks import OTHER_PACKAGES, series_of_names
from coreml_prune_bench.report.made import named
from coreml_prune_bench.report.page_tables import Filtered, PageTable, brief, short
from coreml_prune_bench.report.sensitivity import caption as sensitivity_caption
from coreml_prune_bench.report.sensitivity import panels as sensitivity_panels
from coreml_prune_bench.report.sensitivity import rows as sensitivity_rows

_Values = dict[str, Any]
"""What a row says, by the names of CSV and JSON."""
Series = dict[str, int]
"""The series of each algorithm's title."""


@dataclass(frozen=True)
class Charted:
    """Charts and the table of what they show."""

    draw: list[Draw]
    table: PageTable


def series_of(table: list[_Values], latencies: list[LatencyRecord]) -> Series:
    """What marks tell apart: algorithms, by their titles."""
    titles = [row["algorithm_title"] for row in table if row["algorithm_title"]]
    return series_of_names(map(named, [*titles, *map(_latency_series, latencies)]))


def _names(series: Series) -> dict[int, str]:
    return {number: one_line(name) for name, number in series.items()}


def pareto(table: list[_Values], series: Series) -> list[tuple[str, Draw]]:
    """One chart a network and data set, with the network's title: suites that measured the same stand in the same."""
    measured = [row for row in table if row["top1_mean"] is not None]
    several = len({row["data"] for row in measured}) > len({row["model_title"] for row in measured})
    groups: dict[tuple[str, str], list[_Values]] = {}
    for row in measured:
        groups.setdefault((row["model_title"], row["data"]), []).append(row)
    return [
        (
            model,
            partial(
                charts.scatter,
                f"{model} on {data}" if several else model,
                [_point(row, series) for row in group],
                "weight.bin (MB)",
                "top-1 (%)",
                _names(series),
            ),
        )
        for (model, data), group in groups.items()
    ]


def _point(row: _Values, series: Series) -> Point:
    spread = (
        "" if row["top1_std"] is None else f", standard deviation over {row['trials']} trials {row['top1_std']:.2f}"
    )
    ratio = "" if row["compression_ratio"] is None else f", ratio {row['compression_ratio']:.2f}"
    return Point(
        x=row["weight_bytes"] / 1e6,
        y=row["top1_mean"],
        error=row["top1_stderr"],
        series=series[named(row["algorithm_title"])],
        label=short(row["config"]),
        details=(
            f"{row['model_title']}, {named(row['algorithm_title'])}",
            row["config"],
            f"top-1 {row['top1_mean']:.2f} ± {row['top1_stderr']:.2f} %{spread}",
            f"{row['weight_bytes'] / 1e6:.2f} MB{ratio}",
            f"{row['images']:,} images, {row['data']}",
            f"suite {row['suite']}, runtime {row['runtime']}",
        ),
    )


def _latency_series(record: LatencyRecord) -> str:
    return record.package.pruning.title if record.package.pruning else OTHER_PACKAGES


def latency_charts(latencies: list[LatencyRecord], series: Series) -> list[Charted]:
    """One chart a device, runtime, choice of compute units and protocol: only such samples can be compared."""
    groups: dict[str, list[LatencyRecord]] = {}
    for record in latencies:
        if record.status == "measured":
            device, runtime = record.device, record.runtime
            title = f"{device.name}, {device.os} {device.os_version}, {runtime.name}, {runtime.compute_units}"
            groups.setdefault(f"{title}\n{record.protocol.model_dump_json()}", []).append(record)
    return [_latency_of(key.split("\n")[0], group, series) for key, group in groups.items()]


def _latency_of(title: str, group: list[LatencyRecord], series: Series) -> Charted:
    from coreml_prune_bench.latency.statistics import durations, summarize
    from coreml_prune_bench.report.latency_tables import besides

    summaries = [summarize(record) for record in group]
    table = [
        {
            "Package": record.package.name,
            "Median (ms)": f"{summary.median_ns.value / 1e6:.3f}",
            "95 % Interval": f"{summary.median_ns.low / 1e6:.3f} to {summary.median_ns.high / 1e6:.3f}",
            "p90 (ms)": "-" if summary.p90_ns is None else f"{summary.p90_ns / 1e6:.3f}",
            "p99 (ms)": "-" if summary.p99_ns is None else f"{summary.p99_ns / 1e6:.3f}",
            "Predictions": f"{summary.predictions:,}",
            "Rounds": f"{len(record.rounds)}",
            **more,
            "Remarks": "; ".join(summary.warnings) or "none",
        }
        for record, summary, more in zip(group, summaries, besides(group), strict=True)
    ]
    draw = partial(
        charts.distributions,
        title,
        [
            Distribution(
                name=brief(record.package.name),
                samples=[float(ns) / 1e6 for one in record.rounds for ns in durations(one)],
                typical=summary.median_ns.value / 1e6,
                series=series[named(_latency_series(record))],
                details=tuple(f"{name}: {text}" for name, text in row.items()),
            )
            for record, summary, row in zip(group, summaries, table, strict=True)
        ],
        "ms a prediction",
        _names(series),
    )
    timing = group[0].protocol
    note = (
        f"{timing.rounds} rounds of at least {timing.predictions} predictions and {timing.seconds:g} s each, batch "
        f"{timing.batch_size}, {timing.concurrency} at a time. A line marks the median over rounds of their medians."
    )
    filters = [
        Filtered(
            record.package.network.title if record.package.network else None, series[named(_latency_series(record))]
        )
        for record in group
    ]
    return Charted([draw], PageTable(title, note, table, filters=filters))


def sensitivity_charts(found: Sensitivity) -> Charted:
    title = f"{found.title} on {found.data}"
    return Charted(sensitivity_panels(found), PageTable(title, sensitivity_caption(found), sensitivity_rows(found)))
