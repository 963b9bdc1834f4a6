"""The answer that the page begins with: which package to take, by what a point of accuracy is worth.

Of each network on a data set, the smallest package that loses no more than so many points against the dense one, and
the best at each size; with the gate's intervals, paired by image.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from coreml_prune_bench.records.hits import right
from coreml_prune_bench.records.latency import LatencyRecord
from coreml_prune_bench.report.accuracy_tables import view_of
from coreml_prune_bench.report.config_rows import ConfigRow
from coreml_prune_bench.report.formats import number
from coreml_prune_bench.report.made import named

if TYPE_CHECKING:
    from coreml_prune_bench.records.statistics import Finding

POINTS = (1, 2)
"""Of top-1 that may be lost."""
_ALPHA = 0.025
"""Each side of an interval, which then covers 95 %."""


@dataclass(frozen=True)
class Choice:
    """A row and what is known of it.

    asked: in words, what it is the answer to. top1, loss: fractions, with intervals of 95 %; loss is positive where the
    row is worse than the dense one, None for that itself and where it was not measured on the same images.
    """

    asked: str
    row: ConfigRow
    top1: "Finding"
    loss: tuple[float, float, float] | None


@dataclass(frozen=True)
class Answer:
    """Of one network on one data set. choices: within 1 and 2 points first, then the best at each size, small to large.

    missing: what no package does, a sentence each.
    """

    title: str
    network: str
    choices: list[Choice]
    missing: list[str]


def answers(rows: Iterable[ConfigRow]) -> list[Answer]:
    """One for each network, data set and package format that has a measured row."""
    groups: dict[tuple[str, str, str], list[ConfigRow]] = {}
    for row in rows:
        if row.first and row.weight_bytes and row.top1:
            groups.setdefault((row.first.subject_key, row.first.package_format, row.data or ""), []).append(row)
    found = [_answer(group) for group in groups.values()]
    several = Counter(one.title for one in found)
    views = [view_of(group[0]) for group in groups.values()]
    return [
        one if several[one.title] == 1 else replace(one, title=f"{one.title}, {view}")
        for one, view in zip(found, views, strict=True)
    ]


def choice_cells(choice: Choice, latencies: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """A choice as a reader sees it, by header. latencies: as `medians` has them."""
    row = choice.row
    lost = "-"
    if choice.loss is not None:
        estimate, low, high = (100 * value for value in choice.loss)
        lost = f"{estimate:.2f} ({low:.2f} to {high:.2f})"
    top1 = choice.top1
    return {
        "Asked": choice.asked,
        "Config": row.config or "-",
        "Algorithm": named(row.algorithm_title or "-"),
        "Points Lost (95 %)": lost,
        "Top-1 (95 %)": f"{100 * top1.effect:.2f} ({100 * top1.low:.2f} to {100 * top1.high:.2f})",
        "MB": number()((row.weight_bytes or 0) / 1e6),
        "Ratio": number()(row.compression_ratio),
        **latency_cells(row, latencies),
    }


def medians(records: Iterable[LatencyRecord]) -> dict[str, dict[str, float]]:
    """Median latencies in ms: by device, compute units and protocol in words, by the SHA-256 of the package.

    Of several measurements, such as of an earlier version of the system, the newest.
    """
    from coreml_prune_bench.latency.statistics import median_ms

    found: dict[str, dict[str, float]] = {}
    for record in sorted(records, key=lambda record: record.provenance.created):
        if record.status == "measured":
            runtime = [record.runtime.name] if record.runtime.name != "coreml" else []
            where = [record.device.name, record.runtime.compute_units, *runtime, *record.protocol.unusual]
            found.setdefault(", ".join(where), {})[record.package.sha256] = median_ms(record)
    return found


def latency_cells(row: ConfigRow, latencies: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The row's median latency on each device, by header: that of its first trial that was timed."""
    hashes = [package.sha256 for package in row.packages]
    return {
        f"Latency (ms), {where}": number(".3f")(next((of[one] for one in hashes if one in of), None))
        for where, of in latencies.items()
    }


def _answer(rows: Sequence[ConfigRow]) -> Answer:
    known = [_choice(row) for row in rows]
    pruned = [one for one in known if one.row.first and one.row.first.pruning.algorithm != "dense"]
    choices, missing = [], []
    for points in POINTS:
        within = [one for one in pruned if one.loss and one.loss[0] <= points / 100]
        if within:
            best = min(within, key=lambda one: (one.row.weight_bytes or 0, one.loss or ()))
            sure = best.loss is not None and best.loss[2] <= points / 100
            told = "" if sure else ", perhaps more"
            choices.append(replace(best, asked=f"smallest within {points} point{'s' * (points > 1)}{told}"))
        elif any(one.loss for one in pruned):
            missing.append(f"No package loses at most {points} point{'s' * (points > 1)}.")
        else:
            missing.append(f"What is lost is not known: no dense package was measured on the same images ({points}).")
    front: list[Choice] = []
    for one in sorted(known, key=lambda one: (one.row.weight_bytes or 0, -one.top1.effect)):
        if not front or one.top1.effect > front[-1].top1.effect:
            front.append(one)
    choices += [replace(one, asked=f"best up to {(one.row.weight_bytes or 0) / 1e6:.2f} MB") for one in front]
    first = rows[0]
    return Answer(f"{first.title} on {first.data}", first.title or "", choices, list(dict.fromkeys(missing)))


def _choice(row: ConfigRow) -> Choice:
    from coreml_prune_bench.records.statistics import accuracy_against, compare_predictions  # with scipy

    bits = np.stack([right(predictions) for predictions in row.predictions])  # [trials, images]
    top1 = accuracy_against(bits, 0.5, alpha=_ALPHA)
    dense = row.dense.predictions if row.dense else None
    if dense is None or dense.labels != row.labels or (row.first and row.first.pruning.algorithm == "dense"):
        return Choice("", row, top1, None)
    found = compare_predictions(right(dense)[None], bits, allowed=0, margin=0.01, alpha=_ALPHA)
    return Choice("", row, top1, (-found.effect, -found.high, -found.low))
