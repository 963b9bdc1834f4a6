"""Each row beside another algorithm's of the same network and sparsity, as a paired test over the same images.

Like the other tables, from records alone: neither torch nor coremltools.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.hits import right
from coreml_prune_bench.records.latest import newest_trials, of_own_suite
from coreml_prune_bench.records.statistics import compare_predictions, holm
from coreml_prune_bench.report.accuracy_tables import (
    Format,
    Row,
    accuracy,
    mean,
    number,
    render_by_suite,
    sample_std,
)

_ALPHA = 0.05
_CONFIDENCE = f"{100 * (1 - 2 * _ALPHA):.0f} %"


def render_pairs(records: Iterable[Record], algorithm: str, format: Format = "md") -> str:
    """`pairs` as tables, one a suite, in one of the formats; csv and json hold every row in one."""
    return render_by_suite(
        pairs(records, algorithm), format, _caption, lambda of_suite: [_columns(row) for row in of_suite]
    )


def pairs(records: Iterable[Record], algorithm: str) -> list[Row]:
    """Each row with each one of `algorithm` that had the same weights, images, runtime and sparsity.

    The sparsity is the one asked of the network; of "dense" the one row of the network is every row's counterpart.
    Counterparts are of the row's own suite, or where it has none, of others: what one suite measured, no other does.
    Accuracies, differences and agreements are percentages and points; `low` and `high` bound the difference at a
    confidence of 90 %; `p` is two-sided, by the gate's test of predictions, and `p_holm` corrected for the rows of
    the suite. `dense_agreement`: images given the class that the dense network gives them, the mean over trials.
    `build_seconds`: what a trial took before it was evaluated, less what was there already. None where nothing is
    known, as of a row of which every trial failed.
    Raises BenchError where there is no pair, and where a test needs more than one image.
    """
    rows = sorted(newest_trials(records), key=lambda row: (row[0].suite, row[0].network.title, _asked(row) or 0))
    measured = [row for row in rows if _measured(row)]
    table = []
    for suite in dict.fromkeys(row[0].suite for row in rows):
        found = []
        pruned = [row for row in rows if row[0].suite == suite and not _is_dense(row)]
        for row in pruned:
            dense = next(iter(_counterparts(row, measured, "dense")), None)
            found += [_row(row, other, dense) for other in _counterparts(row, measured, algorithm)]
        tested = [pair for pair in found if pair["p"] is not None]
        for pair, corrected in zip(tested, holm([pair["p"] for pair in tested]), strict=True):
            pair["p_holm"] = corrected
        table += found
    if not table:
        known = ", ".join(dict.fromkeys(row[0].pruning.algorithm for row in measured)) or "none measured"
        raise BenchError(
            f"no row has a counterpart of algorithm {algorithm!r} with the same network, weights, images, runtime and "
            f"sparsity; algorithms there: {known}"
        )
    return table


def _counterparts(row: list[Record], rows: list[list[Record]], algorithm: str) -> list[list[Record]]:
    return of_own_suite(row, [other for other in rows if _is_pair(row, other, algorithm)])


def _measured(trials: list[Record]) -> list[Record]:
    return [trial for trial in trials if trial.predictions and trial.runtime]


def _columns(row: Row) -> dict[str, str]:
    return {
        "Model Name": row["model_title"],
        "Config": row["config"],
        "Optimization Algorithm": row["algorithm_title"],
        "Against": row["against_config"],
        "Dense": number(row["dense_top1"]),
        "Its Accuracy": accuracy(row, "against_"),
        "Accuracy": accuracy(row),
        "Difference": number(row["top1_difference"], "+.2f"),
        f"{_CONFIDENCE} Interval": "-" if row["low"] is None else f"{row['low']:+.2f} to {row['high']:+.2f}",
        "p": number(row["p_holm"], ".1g"),
        "Its Agreement": number(row["against_dense_agreement"], ".1f"),
        "Agreement": number(row["dense_agreement"], ".1f"),
        "Relative Size": number(_ratio(row["weight_bytes"], row["against_weight_bytes"])),
        "Build (min)": _minutes(row["build_seconds"]),
        "Trials": f"{row['trials']} and {row['against_trials']}",
        "Images": f"{row['images']:,}",
    }


def _caption(table: list[Row]) -> str:
    data = " and ".join(dict.fromkeys(row["data"] for row in table))
    first = table[0]
    is_dense = first["against_algorithm"] == "dense"
    other = "its dense network" if is_dense else f"{first['against_algorithm_title']} of the same network and sparsity"
    return (
        f"each row against {other}, over the same "
        f"images of {data}. Top-1 in %, mean and standard deviation over trials; the difference in points, with an "
        "interval, and p two-sided, over images and trials, corrected for the number of rows (Holm). Agreement: images "
        "in % that are given the class that the dense network gives them. Relative Size: of weight.bin. Build: "
        "minutes until a trial's package was there, on the machine of its record and with whatever else ran there; "
        "without what was there before, such as sensitivities or a part of a stopped run."
    )


def _ratio(value: float | None, other: float | None) -> float | None:
    return value / other if value and other else None


def _minutes(seconds: float | None) -> str:
    return number(None if seconds is None else seconds / 60, ".1f")


def _is_pair(trials: list[Record], other: list[Record], algorithm: str) -> bool:
    pruning, against = trials[0].pruning, other[0].pruning
    if against.algorithm != algorithm or pruning.algorithm == algorithm or not _same_images(trials, other):
        return False
    return algorithm == "dense" or (_asked(trials) is not None and _asked(trials) == _asked(other))


def _same_images(trials: list[Record], other: list[Record]) -> bool:
    def conditions(record: Record) -> tuple[object, ...]:
        runtime = record.runtime
        assert runtime is not None
        return record.data.skipped, runtime.name, runtime.precision, runtime.compute_units

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


def _row(trials: list[Record], other: list[Record], dense: list[Record] | None) -> Row:
    first = (_measured(trials) or trials)[0]
    images = len(first.predictions.labels) if first.predictions else 0
    if images == 1:
        raise BenchError(f"{first.network.name} was measured on one image; a paired test needs two")
    return {
        "suite": first.suite,
        "data": first.data.spec,
        "model": first.network.name,
        "model_title": first.network.title,
        "sparsity": _asked(trials),
        **_side("", trials, dense),
        **_side("against_", other, dense),
        **(_tested(trials, other) if images else _NOT_TESTED),
        "dense_top1": mean(_top1(dense)) if dense else None,
        "images": images,
        "runtime": first.runtime.name if first.runtime else None,
    }


_NOT_TESTED: Row = dict.fromkeys(("top1_difference", "low", "high", "p", "p_holm", "method"))


def _tested(trials: list[Record], other: list[Record]) -> Row:
    finding = compare_predictions(_right(other), _right(trials), allowed=0, margin=0, alpha=_ALPHA)
    return _NOT_TESTED | {
        "top1_difference": 100 * finding.effect,
        "low": 100 * finding.low,
        "high": 100 * finding.high,
        "p": min(1.0, 2 * min(finding.p_below, finding.p_above)),
        "method": finding.method,
    }


def _side(prefix: str, trials: list[Record], dense: list[Record] | None) -> dict[str, Any]:
    pruning, measured = trials[0].pruning, _measured(trials)
    top1 = _top1(measured)
    seconds = [t.provenance.build_seconds for t in measured if t.provenance.build_seconds is not None]
    return {
        f"{prefix}config": pruning.config,
        f"{prefix}algorithm": pruning.algorithm,
        f"{prefix}algorithm_title": pruning.title,
        f"{prefix}trials": len(measured),
        f"{prefix}failed_trials": len(trials) - len(measured),
        f"{prefix}top1_mean": mean(top1),
        f"{prefix}top1_std": sample_std(top1),
        f"{prefix}dense_agreement": 100 * float((_best(measured) == _best(dense)).mean())
        if measured and dense
        else None,
        f"{prefix}weight_bytes": mean([t.package.weight_bytes for t in measured if t.package]),
        f"{prefix}build_seconds": mean(seconds),
    }


def _top1(trials: list[Record]) -> list[float]:
    """In %, by trial."""
    return [100 * trial.predictions.top1 for trial in trials if trial.predictions]


def _right(trials: list[Record]) -> NDArray[np.bool_]:
    """Bool [trials, images]."""
    return np.array([right(trial.predictions) for trial in trials if trial.predictions])


def _best(trials: list[Record]) -> NDArray[np.int64]:
    """The best class, [trials, images]."""
    return np.array([[top[0] for top in trial.predictions.top5] for trial in trials if trial.predictions])
