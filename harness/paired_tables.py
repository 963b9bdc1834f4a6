"""Each row beside another algorithm's of the same network and sparsity, as a paired test over the same images.

Like the other tables, from records alone: neither torch nor coremltools.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import BenchError
from harness.newest import newest_trials
from harness.records import Record
from harness.scored_records import right
from harness.statistics import compare_predictions, holm
from harness.tables import Format, Row, mean, number, render_by_suite, sample_std, spread

_ALPHA = 0.05
_CONFIDENCE = f"{100 * (1 - 2 * _ALPHA):.0f} %"


def render_pairs(records: Iterable[Record], algorithm: str, format: Format = "md") -> str:
    """`pairs` as tables, one a suite, in one of the formats; csv and json hold every row in one."""
    return render_by_suite(
        pairs(records, algorithm), format, _caption, lambda of_suite: [_columns(row) for row in of_suite]
    )


def pairs(records: Iterable[Record], algorithm: str) -> list[Row]:
    """Each row with each one of `algorithm` that had the same suite, weights, images, runtime and sparsity.

    The sparsity is the one asked of the network; of "dense" the one row of the network is every row's counterpart.
    Accuracies, differences and agreements are percentages and points; `low` and `high` bound the difference at a
    confidence of 90 %; `p` is two-sided, by the gate's test of predictions, and `p_holm` corrected for the rows of
    the suite. `dense_agreement`: images given the class that the dense network gives them, the mean over trials.
    `build_seconds`: what a trial took before it was evaluated. None where nothing is known.
    Raises BenchError where there is no pair.
    """
    measured = [
        done for trials in newest_trials(records) if (done := [t for t in trials if t.predictions and t.runtime])
    ]
    measured.sort(key=lambda trials: (trials[0].suite, trials[0].network.title, _asked(trials) or 0))
    table = []
    for suite in dict.fromkeys(trials[0].suite for trials in measured):
        of_suite = [trials for trials in measured if trials[0].suite == suite]
        found = [
            _row(trials, other, next((t for t in of_suite if _is_dense(t) and _same_images(t, trials)), None))
            for trials in of_suite
            for other in of_suite
            if not _is_dense(trials) and _is_pair(trials, other, algorithm)
        ]
        for row, corrected in zip(found, holm([row["p"] for row in found]), strict=True):
            row["p_holm"] = corrected
        table += found
    if not table:
        known = ", ".join(dict.fromkeys(trials[0].pruning.algorithm for trials in measured)) or "none measured"
        raise BenchError(
            f"no row has a counterpart of algorithm {algorithm!r}, of the same suite, network and sparsity; "
            f"algorithms there: {known}"
        )
    return table


def _columns(row: Row) -> dict[str, str]:
    return {
        "Model Name": row["model_title"],
        "Config": row["config"],
        "Optimization Algorithm": row["algorithm_title"],
        "Against": row["against_config"],
        "Dense": number(row["dense_top1"]),
        "Its Accuracy": _accuracy(row, "against_"),
        "Accuracy": _accuracy(row, ""),
        "Difference": number(row["top1_difference"], "+.2f"),
        f"{_CONFIDENCE} Interval": f"{row['low']:+.2f} to {row['high']:+.2f}",
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
        "in % that are given the class that the dense network gives them. Relative Size: of weight.bin. Build: a "
        "trial's minutes on the machine of its record, with whatever else ran there."
    )


def _accuracy(row: Row, prefix: str) -> str:
    return f"{row[prefix + 'top1_mean']:.2f}{spread(row[prefix + 'top1_std'])}"


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
        return record.subject_key, record.data.skipped, runtime.name, runtime.precision, runtime.compute_units

    return len({conditions(record) for record in (*trials, *other)}) == 1


def _is_dense(trials: list[Record]) -> bool:
    return trials[0].pruning.algorithm == "dense"


def _asked(trials: list[Record]) -> float | None:
    """The sparsity asked of the network, whether layers share it or are allocated their own at its size."""
    pruning = trials[0].pruning
    if pruning.sparsity is None and pruning.settings.get("allocation", "uniform") != "uniform":
        return float(pruning.settings["sparsity"])
    return pruning.sparsity


def _row(trials: list[Record], other: list[Record], dense: list[Record] | None) -> Row:
    first = trials[0]
    finding = compare_predictions(_right(other), _right(trials), allowed=0, margin=0, alpha=_ALPHA)
    return {
        "suite": first.suite,
        "data": first.data.spec,
        "model": first.network.name,
        "model_title": first.network.title,
        "sparsity": _asked(trials),
        **_side("", trials, dense),
        **_side("against_", other, dense),
        "top1_difference": 100 * finding.effect,
        "low": 100 * finding.low,
        "high": 100 * finding.high,
        "p": min(1.0, 2 * min(finding.p_below, finding.p_above)),
        "p_holm": None,
        "method": finding.method,
        "dense_top1": mean(_top1(dense)) if dense else None,
        "images": len(first.predictions.labels) if first.predictions else 0,
        "runtime": first.runtime.name if first.runtime else None,
    }


def _side(prefix: str, trials: list[Record], dense: list[Record] | None) -> dict[str, Any]:
    pruning = trials[0].pruning
    top1 = _top1(trials)
    seconds = [t.provenance.build_seconds for t in trials if t.provenance.build_seconds is not None]
    return {
        f"{prefix}config": pruning.config,
        f"{prefix}algorithm": pruning.algorithm,
        f"{prefix}algorithm_title": pruning.title,
        f"{prefix}trials": len(trials),
        f"{prefix}top1_mean": mean(top1),
        f"{prefix}top1_std": sample_std(top1),
        f"{prefix}dense_agreement": 100 * float((_best(trials) == _best(dense)).mean()) if dense else None,
        f"{prefix}weight_bytes": mean([t.package.weight_bytes for t in trials if t.package]),
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
