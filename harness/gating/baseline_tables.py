"""What a baseline holds, and what two differ in, as rows of plain numbers. Tests are the gate's."""

from typing import Any

import numpy as np

from coreml_prune_bench.gating.pairs import matched_rows
from coreml_prune_bench.gating.rows import AccuracyRow, Baseline, LatencyRow

Values = dict[str, Any]


def overview(baseline: Baseline) -> list[Values]:
    """One row a cell and place of measurement. Percentages, bytes, milliseconds; None for what it is not about."""
    return [*map(_values, baseline.accuracy), *map(_values, baseline.latency)]


def differences(first: Baseline, second: Baseline) -> list[Values]:
    """One row for each value that differs, and for each row that only one has."""
    found: list[Values] = []
    for pair in matched_rows(first, second):
        key = pair.key
        names = {"model": key.model, "algorithm": key.algorithm, "config": key.config, "on": key.place}
        if pair.baseline is None or pair.run is None:
            found.append({**names, "what": f"only in the {'first' if pair.baseline else 'second'}"})
            continue
        old, new = _values(pair.baseline), _values(pair.run)
        changed = [{"what": what, "first": old[what], "second": new[what]} for what in old if old[what] != new[what]]
        found += [{**names, **change} for change in changed]
        if isinstance(pair.baseline, AccuracyRow) and isinstance(pair.run, AccuracyRow) and not pair.differences:
            found += [{**names, **change} for change in _images_changed(pair.baseline, pair.run)]
    return found


def _values(row: AccuracyRow | LatencyRow) -> Values:
    values: Values = {"model": row.model, "algorithm": row.algorithm, "config": row.config}
    if isinstance(row, AccuracyRow):
        return values | {
            "on": f"{row.runtime.name}, {row.runtime.precision}",
            "data": f"{row.images.spec} ({row.images.fingerprint[:8]})",
            "images": row.images.count,
            "trials": len(row.trials),
            "top1_percent": 100 * row.top1,
            "weight_bytes": row.weight_bytes,
            "whole_model_sparsity_percent": 100 * row.whole_model_sparsity,
            "latency_ms": None,
            "rounds": None,
        }
    medians = [one.model_median_ns or one.call_median_ns for one in row.rounds]
    return values | {
        "on": f"{row.runtime.name}, {row.runtime.compute_units}, {row.device.name}",
        "data": None,
        "images": None,
        "trials": None,
        "top1_percent": None,
        "weight_bytes": None,
        "whole_model_sparsity_percent": None,
        "latency_ms": float(np.median(medians)) / 1e6,
        "rounds": len(row.rounds),
    }


def _images_changed(first: AccuracyRow, second: AccuracyRow) -> list[Values]:
    """How many images are right on one side only, of the trials that both have."""
    counts = [int((a != b).sum()) for a, b in zip(first.correct, second.correct, strict=False)]
    return [{"what": "images that only one gets right", "first": None, "second": sum(counts)}] if any(counts) else []
