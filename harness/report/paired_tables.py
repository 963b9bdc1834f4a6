"""Each row beside that of another algorithm or config at the same sparsity, as a paired test over the same images.

Like the other tables, from records alone: neither torch nor coremltools.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import BenchError, did_you_mean
from coreml_prune_bench.records.accuracy import Pruning, Record, Runtime
from coreml_prune_bench.records.hits import right
from coreml_prune_bench.records.latest import newest_trials, of_own_suite
from coreml_prune_bench.records.statistics import Finding, compare_predictions, holm
from coreml_prune_bench.report.accuracy_tables import Spread, render_by_suite, spread
from coreml_prune_bench.report.config_rows import mean, sample_std
from coreml_prune_bench.report.formats import Column, Format, cells, number, text, values

_ALPHA = 0.05
CONFIDENCE = f"{100 * (1 - 2 * _ALPHA):.0f} %"
_TABLE = "pairs"


@dataclass(frozen=True)
class Side:
    """One of a pair: its trials, and those of the dense network where it was measured."""

    trials: list[Record]
    dense: list[Record] | None

    @property
    def pruning(self) -> Pruning:
        return self.trials[0].pruning

    @cached_property
    def measured(self) -> list[Record]:
        return _measured(self.trials)

    @cached_property
    def accuracy(self) -> Spread:
        """Top-1 in %."""
        top1 = _top1(self.measured)
        return Spread(mean(top1), sample_std(top1), len(self.trials) - len(self.measured))

    @cached_property
    def dense_agreement(self) -> float | None:
        """Images given the class that the dense network gives them, in %, the mean over trials."""
        if not self.measured or not self.dense:
            return None
        return 100 * float((best(self.measured) == best(self.dense)).mean())

    @property
    def weight_bytes(self) -> float | None:
        return mean([trial.package.weight_bytes for trial in self.measured if trial.package])

    @property
    def build_seconds(self) -> float | None:
        """Until a trial could be evaluated, the mean over those that tell."""
        built = [trial.provenance.build_seconds for trial in self.measured]
        return mean([seconds for seconds in built if seconds is not None])


@dataclass(frozen=True)
class Pair:
    """A row beside its counterpart, over the same images. finding: None where nothing of the row was measured.

    p_holm: p corrected for the rows of the suite.
    """

    row: Side
    against: Side
    finding: Finding | None
    p_holm: float | None = None

    @property
    def first(self) -> Record:
        return (self.row.measured or self.row.trials)[0]

    @property
    def suite(self) -> str:
        return self.first.suite

    @property
    def runtime(self) -> Runtime | None:
        return self.first.runtime

    @property
    def images(self) -> int:
        return len(self.first.predictions.labels) if self.first.predictions else 0

    @property
    def p(self) -> float | None:
        """Two-sided."""
        return min(1.0, 2 * min(self.finding.p_below, self.finding.p_above)) if self.finding else None

    @property
    def dense_top1(self) -> float | None:
        """In %."""
        return mean(_top1(self.row.dense)) if self.row.dense else None

    @property
    def relative_size(self) -> float | None:
        ours, theirs = self.row.weight_bytes, self.against.weight_bytes
        return ours / theirs if ours and theirs else None


def _side_columns(prefix: str, side: Callable[[Pair], Side]) -> list[Column[Pair]]:
    return [
        Column(f"{prefix}config", lambda pair: side(pair).pruning.config),
        Column(f"{prefix}algorithm", lambda pair: side(pair).pruning.algorithm),
        Column(f"{prefix}algorithm_title", lambda pair: side(pair).pruning.title),
        Column(f"{prefix}trials", lambda pair: len(side(pair).measured)),
        Column(f"{prefix}failed_trials", lambda pair: side(pair).accuracy.failed),
        Column(f"{prefix}top1_mean", lambda pair: side(pair).accuracy.mean),
        Column(f"{prefix}top1_std", lambda pair: side(pair).accuracy.std),
        Column(f"{prefix}dense_agreement", lambda pair: side(pair).dense_agreement),
        Column(f"{prefix}weight_bytes", lambda pair: side(pair).weight_bytes),
        Column(f"{prefix}build_seconds", lambda pair: side(pair).build_seconds),
    ]


def _minutes(seconds: float | None) -> str:
    return number(".1f")(None if seconds is None else seconds / 60)


def interval(finding: Finding | None) -> str:
    return "-" if finding is None else f"{100 * finding.low:+.2f} to {100 * finding.high:+.2f}"


def _for_readers(header: str, value: Callable[[Pair], Any], form: Callable[[Any], str] = text) -> Column[Pair]:
    return Column(None, value, header, form, (_TABLE,))


COLUMNS: list[Column[Pair]] = [
    # In the order of CSV and JSON,
    Column("suite", lambda pair: pair.suite),
    Column("data", lambda pair: pair.first.data.spec),
    Column("model", lambda pair: pair.first.network.name),
    Column("model_title", lambda pair: pair.first.network.title),
    Column("sparsity", lambda pair: _asked(pair.row.trials)),
    *_side_columns("", lambda pair: pair.row),
    *_side_columns("against_", lambda pair: pair.against),
    Column("top1_difference", lambda pair: pair.finding and 100 * pair.finding.effect),
    Column("low", lambda pair: pair.finding and 100 * pair.finding.low),
    Column("high", lambda pair: pair.finding and 100 * pair.finding.high),
    Column("p", lambda pair: pair.p),
    Column("p_holm", lambda pair: pair.p_holm),
    Column("method", lambda pair: pair.finding and pair.finding.method),
    Column("dense_top1", lambda pair: pair.dense_top1),
    Column("images", lambda pair: pair.images),
    Column("runtime", lambda pair: pair.runtime and pair.runtime.name),
    # and of the readers' table.
    _for_readers("Model Name", lambda pair: pair.first.network.title),
    _for_readers("Config", lambda pair: pair.first.config),
    _for_readers("Optimization Algorithm", lambda pair: pair.row.pruning.title),
    _for_readers("Against", lambda pair: pair.against.pruning.config),
    _for_readers("Dense", lambda pair: pair.dense_top1, number()),
    _for_readers("Its Accuracy", lambda pair: pair.against.accuracy, spread),
    _for_readers("Accuracy", lambda pair: pair.row.accuracy, spread),
    _for_readers("Difference", lambda pair: pair.finding and 100 * pair.finding.effect, number("+.2f")),
    _for_readers(f"{CONFIDENCE} Interval", lambda pair: pair.finding, interval),
    _for_readers("p", lambda pair: pair.p_holm, number(".1g")),
    _for_readers("Its Agreement", lambda pair: pair.against.dense_agreement, number(".1f")),
    _for_readers("Agreement", lambda pair: pair.row.dense_agreement, number(".1f")),
    _for_readers("Relative Size", lambda pair: pair.relative_size, number()),
    _for_readers("Build (min)", lambda pair: pair.row.build_seconds, _minutes),
    _for_readers("Trials", lambda pair: f"{len(pair.row.measured)} and {len(pair.against.measured)}"),
    _for_readers("Images", lambda pair: f"{pair.images:,}"),
]
"""What a row says beside its counterpart. Accuracies, differences and agreements are percentages and points."""


def render_pairs(records: Iterable[Record], against: str, format: Format = "md", *, width: int | None = None) -> str:
    """`pairs` as tables, one a suite, in one of the formats; csv and json hold every row in one."""

    def worded(of_suite: list[Pair]) -> list[dict[str, str]]:
        return [cells(COLUMNS, pair, _TABLE) for pair in of_suite]

    return render_by_suite(_pairs(records, against), COLUMNS, format, _caption, worded, width=width)


def pairs(records: Iterable[Record], against: str) -> list[dict[str, Any]]:
    """Each row with each one of `against` that had the same weights, images, runtime and sparsity, as csv has it.

    against: an algorithm, for the rows of all others; or the name of a config, for the others of its algorithm. The
    sparsity is the one asked of the network; of "dense" the one row of the network is every row's counterpart.
    Counterparts are of the row's own suite, or where it has none, of others: what one suite measured, no other does.
    Accuracies, differences and agreements are percentages and points; `low` and `high` bound the difference at a
    confidence of 90 %; `p` is two-sided, by the gate's test of predictions, and `p_holm` corrected for the rows of
    the suite. `dense_agreement`: images given the class that the dense network gives them, the mean over trials.
    `build_seconds`: what a trial took before it was evaluated, less what was there already. None where nothing is
    known, as of a row of which every trial failed.
    Raises BenchError where there is no pair, and where a test needs more than one image.
    """
    return [values(COLUMNS, pair) for pair in _pairs(records, against)]


def _pairs(records: Iterable[Record], against: str) -> list[Pair]:
    rows = sorted(newest_trials(records), key=lambda row: (row[0].suite, row[0].network.title, _asked(row) or 0))
    measured = [row for row in rows if _measured(row)]
    found: list[Pair] = []
    for row in (row for row in rows if not _is_dense(row)):
        dense = next(iter(_counterparts(row, measured, "dense")), None)
        found += [_pair(row, other, dense) for other in _counterparts(row, measured, against)]
    if not found:
        known = ", ".join(dict.fromkeys(row[0].pruning.algorithm for row in measured)) or "none measured"
        configs = [row[0].pruning.config for row in measured]
        raise BenchError(
            f"no row has a counterpart of algorithm or config {against!r} with the same network, weights, images, "
            f"runtime and sparsity; algorithms there: {known}{did_you_mean(against, configs)}"
        )
    return corrected(found)


_AnyPair = TypeVar("_AnyPair", bound=Pair)


def corrected(found: list[_AnyPair]) -> list[_AnyPair]:
    """By suite, each with its p corrected for those of its suite."""
    table: list[_AnyPair] = []
    for suite in dict.fromkeys(pair.suite for pair in found):
        of_suite = [pair for pair in found if pair.suite == suite]
        p_holm = iter(holm([pair.p for pair in of_suite if pair.p is not None]))
        table += [pair if pair.p is None else replace(pair, p_holm=next(p_holm)) for pair in of_suite]
    return table


def _counterparts(row: list[Record], rows: list[list[Record]], against: str) -> list[list[Record]]:
    return of_own_suite(row, [other for other in rows if _is_pair(row, other, against)])


def _measured(trials: list[Record]) -> list[Record]:
    return [trial for trial in trials if trial.predictions and trial.runtime]


def _caption(table: list[Pair]) -> str:
    data = " and ".join(dict.fromkeys(pair.first.data.spec for pair in table))
    against = table[0].against.pruning
    if against.algorithm == "dense":
        other = "its dense network"
    elif against.algorithm == table[0].row.pruning.algorithm:
        other = f"{against.config} of the same network and algorithm"
    else:
        other = f"{against.title} of the same network and sparsity"
    return (
        f"each row against {other}, over the same "
        f"images of {data}. Top-1 in %, mean and standard deviation over trials; the difference in points, with an "
        "interval, and p two-sided, over images and trials, corrected for the number of rows (Holm). Agreement: images "
        "in % that are given the class that the dense network gives them. Relative Size: of weight.bin. Build: "
        "minutes until a trial's package was there, on the machine of its record and with whatever else ran there; "
        "without what was there before, such as sensitivities or a part of a stopped run."
    )


def _is_pair(trials: list[Record], other: list[Record], against: str) -> bool:
    pruning, others = trials[0].pruning, other[0].pruning
    if trials[0].package_format != other[0].package_format:
        return False
    if others.algorithm == pruning.algorithm:
        is_it = others.config == against != pruning.config
    else:
        is_it = others.algorithm == against
    if not is_it or not same_images(trials, other):
        return False
    return against == "dense" or (_asked(trials) is not None and _asked(trials) == _asked(other))


def same_images(trials: list[Record], other: list[Record]) -> bool:
    """Whether all were measured on the same images by the same runtime, from the same weights."""

    def conditions(record: Record) -> tuple[object, ...]:
        runtime = record.runtime
        assert runtime is not None
        assert record.predictions is not None
        return (
            len(record.predictions.labels),
            record.data.skipped,
            runtime.name,
            runtime.precision,
            runtime.compute_units,
        )

    same = len({conditions(record) for record in (*_measured(trials), *_measured(other))}) == 1
    return same and trials[0].subject_key == other[0].subject_key


def _is_dense(trials: list[Record]) -> bool:
    return trials[0].pruning.algorithm == "dense"


def _asked(trials: list[Record]) -> float | None:
    """The sparsity asked of the network, whether layers share it or are allocated their own at its size."""
    pruning = trials[0].pruning
    if pruning.sparsity is None and pruning.settings.get("allocation", "uniform") != "uniform":
        return float(pruning.settings["sparsity"])
    return pruning.sparsity


def _pair(trials: list[Record], other: list[Record], dense: list[Record] | None) -> Pair:
    pair = Pair(Side(trials, dense), Side(other, dense), finding=None)
    if pair.images == 1:
        raise BenchError(f"{pair.first.network.name} was measured on one image; a paired test needs two")
    if not pair.images:
        return pair
    return replace(pair, finding=paired(trials, other))


def paired(trials: list[Record], other: list[Record]) -> Finding | None:
    """How the accuracy of `trials` differs from that of `other`, image by image; None for a single image."""
    ours, theirs = _right(trials), _right(other)
    if ours.shape[1] < 2:
        return None
    return compare_predictions(theirs, ours, allowed=0, margin=0, alpha=_ALPHA)


def _top1(trials: list[Record]) -> list[float]:
    """In %, by trial."""
    return [100 * trial.predictions.top1 for trial in trials if trial.predictions]


def _right(trials: list[Record]) -> NDArray[np.bool_]:
    """Bool [trials, images]."""
    return np.array([right(trial.predictions) for trial in trials if trial.predictions])


def best(trials: list[Record]) -> NDArray[np.int64]:
    """The best class, [trials, images]."""
    return np.array([[top[0] for top in trial.predictions.top5] for trial in trials if trial.predictions])
