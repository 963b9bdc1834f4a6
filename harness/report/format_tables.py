"""Each pruned network in both package formats: what they weigh, what they predict, and whether that differs.

From records alone: neither torch nor coremltools.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency.statistics import median_ms
from coreml_prune_bench.records.accuracy import CORE_ML, Record
from coreml_prune_bench.records.latency import LatencyRecord
from coreml_prune_bench.records.latest import newest_trials
from coreml_prune_bench.report.accuracy_tables import render_by_suite, spread
from coreml_prune_bench.report.config_rows import mean
from coreml_prune_bench.report.formats import Column, Format, cells, number, text, values
from coreml_prune_bench.report.paired_tables import (
    CONFIDENCE,
    Pair,
    Side,
    best,
    corrected,
    interval,
    paired,
    same_images,
)

_TABLE = "formats"


@dataclass(frozen=True)
class FormatPair(Pair):
    """A row in another format beside the one in Core ML's: the same network, config, images and runtime.

    latencies: Core ML's and the other's records, of one device and choice of compute units; None where there are none.
    """

    latencies: tuple[LatencyRecord, LatencyRecord] | None = None

    def latency_ms(self, side: Literal[0, 1]) -> float | None:
        """The median over rounds."""
        return median_ms(self.latencies[side]) if self.latencies else None

    @property
    def compute_units(self) -> str | None:
        return self.latencies[0].runtime.compute_units if self.latencies else None


def _agreement(pair: Pair) -> float:
    """Images that both give one class, in %, over the trials that both have."""
    theirs, ours = ({trial.trial: trial for trial in side.measured} for side in (pair.row, pair.against))
    shared = [number for number in ours if number in theirs]
    return 100 * float((best([ours[n] for n in shared]) == best([theirs[n] for n in shared])).mean())


def _ratio(side: Side) -> float | None:
    """Bytes of the weights, dense over pruned, both of the side's format."""
    dense = mean([trial.package.weight_bytes for trial in side.dense or () if trial.package])
    return dense / side.weight_bytes if dense and side.weight_bytes else None


def _for_readers(header: str, value: Any, form: Any = text) -> Column[FormatPair]:
    return Column(None, value, header, form, (_TABLE,))


COLUMNS: list[Column[FormatPair]] = [
    Column("suite", lambda pair: pair.suite),
    Column("data", lambda pair: pair.first.data.spec),
    Column("model", lambda pair: pair.first.network.name),
    Column("config", lambda pair: pair.first.pruning.config),
    Column("algorithm", lambda pair: pair.first.pruning.algorithm),
    Column("package_format", lambda pair: pair.against.measured[0].package_format),
    Column("other_package_format", lambda pair: pair.first.package_format),
    Column("compression_ratio", lambda pair: _ratio(pair.against)),
    Column("other_compression_ratio", lambda pair: _ratio(pair.row)),
    Column("weight_bytes", lambda pair: pair.against.weight_bytes),
    Column("other_weight_bytes", lambda pair: pair.row.weight_bytes),
    Column("top1_mean", lambda pair: pair.against.accuracy.mean),
    Column("top1_std", lambda pair: pair.against.accuracy.std),
    Column("other_top1_mean", lambda pair: pair.row.accuracy.mean),
    Column("other_top1_std", lambda pair: pair.row.accuracy.std),
    Column("top1_difference", lambda pair: pair.finding and 100 * pair.finding.effect),
    Column("low", lambda pair: pair.finding and 100 * pair.finding.low),
    Column("high", lambda pair: pair.finding and 100 * pair.finding.high),
    Column("p", lambda pair: pair.p),
    Column("p_holm", lambda pair: pair.p_holm),
    Column("agreement", _agreement),
    Column("images", lambda pair: pair.images),
    Column("compute_units", lambda pair: pair.compute_units),
    Column("latency_ms", lambda pair: pair.latency_ms(0)),
    Column("other_latency_ms", lambda pair: pair.latency_ms(1)),
    _for_readers("Model Name", lambda pair: pair.first.network.title),
    _for_readers("Config", lambda pair: pair.first.pruning.config),
    _for_readers("Optimization Algorithm", lambda pair: pair.first.pruning.title),
    _for_readers("Core ML Ratio", lambda pair: _ratio(pair.against), number()),
    _for_readers("Core AI Ratio", lambda pair: _ratio(pair.row), number()),
    _for_readers("Core ML Accuracy", lambda pair: pair.against.accuracy, spread),
    _for_readers("Core AI Accuracy", lambda pair: pair.row.accuracy, spread),
    _for_readers("Difference", lambda pair: pair.finding and 100 * pair.finding.effect, number("+.2f")),
    _for_readers(f"{CONFIDENCE} Interval", lambda pair: pair.finding, interval),
    _for_readers("p", lambda pair: pair.p_holm, number(".1g")),
    _for_readers("Same Class", _agreement, number(".2f")),
    _for_readers("Images", lambda pair: f"{pair.images:,}"),
    _for_readers("Core ML (ms)", lambda pair: pair.latency_ms(0), number(".3f")),
    _for_readers("Core AI (ms)", lambda pair: pair.latency_ms(1), number(".3f")),
]
"""What a row says of both formats. Accuracies, differences and agreements are percentages and points."""


def render_formats(
    records: Iterable[Record],
    latencies: Iterable[LatencyRecord] = (),
    format: Format = "md",
    *,
    width: int | None = None,
) -> str:
    """`format_pairs` as tables, one a suite, in one of the formats; csv and json hold every row in one."""

    def worded(of_suite: list[FormatPair]) -> list[dict[str, str]]:
        told = [cells(COLUMNS, pair, _TABLE) for pair in of_suite]
        return told if any(pair.latencies for pair in of_suite) else [_without_latencies(row) for row in told]

    return render_by_suite(_pairs(records, latencies), COLUMNS, format, _caption, worded, width=width)


def format_pairs(records: Iterable[Record], latencies: Iterable[LatencyRecord] = ()) -> list[dict[str, Any]]:
    """Each row that was measured in Core ML's format and in another one, on the same images and runtime, as csv has it.

    `low` and `high` bound the difference (the other format's minus Core ML's, in points) at a confidence of 90 %; `p`
    is two-sided, by the gate's test of predictions, and `p_holm` corrected for the rows of the suite. `latency_ms` and
    `other_latency_ms`: medians on one device and choice of compute units, where both were measured.
    Raises BenchError where there is no such row.
    """
    return [values(COLUMNS, pair) for pair in _pairs(records, latencies)]


def _without_latencies(row: dict[str, str]) -> dict[str, str]:
    return {header: cell for header, cell in row.items() if not header.endswith("(ms)")}


def _pairs(records: Iterable[Record], latencies: Iterable[LatencyRecord]) -> list[FormatPair]:
    timed = _by_package(latencies)
    rows = [Side(trials, None) for trials in newest_trials(records)]
    measured = [side for side in rows if side.measured]
    found = [
        FormatPair(
            _with_dense(theirs, measured),
            _with_dense(ours, measured),
            paired(theirs.measured, ours.measured),
            latencies=_on_one_device(_timed(ours, timed), _timed(theirs, timed)),
        )
        for ours in measured
        for theirs in measured
        if ours.measured[0].package_format == CORE_ML and _is_other_format(ours, theirs)
    ]
    if not found:
        raise BenchError(
            "no row was measured in both package formats on the same images and runtime: "
            "run the suite with --package-format mlpackage,aimodel"
        )
    return corrected(found)


_Timed = dict[tuple[tuple[str, ...], str, str], LatencyRecord]
"""By what is unusual of the protocol, the choice of compute units, and the device's name."""


def _by_package(records: Iterable[LatencyRecord]) -> dict[str, _Timed]:
    """What Apple's runtimes took, by the SHA-256 of the package; of several measurements the last."""
    found: dict[str, _Timed] = {}
    for record in sorted(records, key=lambda record: record.provenance.created):
        if record.status == "measured" and record.runtime.name != "portable":
            place = record.protocol.unusual, record.runtime.compute_units, record.device.name
            found.setdefault(record.package.sha256, {})[place] = record
    return found


def _timed(side: Side, timed: dict[str, _Timed]) -> _Timed:
    """Of the first trial that was measured: trials differ in which weights are zero, not in how many."""
    packages = [trial.package.sha256 for trial in side.measured if trial.package]
    return next((timed[sha256] for sha256 in packages if sha256 in timed), {})


def _on_one_device(ours: _Timed, theirs: _Timed) -> tuple[LatencyRecord, LatencyRecord] | None:
    places = sorted(ours.keys() & theirs.keys())  # the usual protocol and all compute units come first
    return (ours[places[0]], theirs[places[0]]) if places else None


def _is_other_format(ours: Side, theirs: Side) -> bool:
    one, other = ours.measured[0], theirs.measured[0]
    row = [(r.suite, r.network.name, r.pruning.algorithm, r.pruning.config) for r in (one, other)]
    return (
        row[0] == row[1] and one.package_format != other.package_format and same_images(ours.measured, theirs.measured)
    )


def _with_dense(side: Side, others: list[Side]) -> Side:
    """With the dense network of its own format."""
    first = side.measured[0]
    dense = [
        other.measured
        for other in others
        if other.pruning.algorithm == "dense"
        and other.measured[0].package_format == first.package_format
        and other.measured[0].subject_key == first.subject_key
    ]
    return Side(side.trials, dense[-1] if dense else None)


def _caption(table: list[FormatPair]) -> str:
    timed = dict.fromkeys(f"{pair.latencies[0].device.name}, {pair.compute_units}" for pair in table if pair.latencies)
    data = " and ".join(dict.fromkeys(pair.first.data.spec for pair in table))
    return (
        f"each row in Core ML's format and in Core AI's, over the same images of {data}. Top-1 in %, mean and standard "
        "deviation over trials; the difference (Core AI's minus Core ML's) in points, with an interval, and p "
        "two-sided, over images and trials, corrected for the number of rows (Holm). Ratio: bytes of the weights, "
        "dense over pruned, within one format. Same Class: images in % that both packages give one class."
        + (f" Milliseconds: the median of a prediction on {' and '.join(timed)}." if timed else "")
    )
