"""Which rows of a run and of a baseline belong together, and whether they can be compared."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from coreml_prune_bench.gating.limits import CHECKS, Key, Kind, Rules, RuleSet
from coreml_prune_bench.gating.rows import AccuracyRow, Baseline, LatencyRow
from coreml_prune_bench.models.preprocessing import USUAL

Cell = tuple[str, str, str, str]
"""Model, algorithm, config and, of latencies, compute units."""

_SHOWN = 8  # characters of a fingerprint

_Row = TypeVar("_Row", AccuracyRow, LatencyRow)


@dataclass(frozen=True)
class Pair:
    """A row on both sides, or on one. absent: why the baseline's is not there, where its absence is no novelty."""

    kind: Kind
    key: Key
    rules: Rules
    baseline: AccuracyRow | LatencyRow | None
    run: AccuracyRow | LatencyRow | None
    absent: str = ""

    @cached_property
    def differences(self) -> list[str]:
        """What makes the two sides incomparable."""
        if self.baseline is None or self.run is None:
            return []
        sides = [_conditions(row) for row in (self.baseline, self.run)]
        found = []
        for name, (old, told_old) in sides[0].items():
            new, told_new = sides[1][name]
            if old != new and None not in (old, new) and name not in self.rules.across:
                found.append(f"{name}: {told_old} -> {told_new}")
        return found

    @property
    def has_evidence(self) -> bool:
        """Whether accuracy or latency can and shall be compared."""
        both = self.baseline is not None and self.run is not None
        return both and not self.differences and CHECKS[self.kind][0] in self.rules.checks

    @property
    def is_same_package(self) -> bool:
        """The same packages with the same predictions: nothing is left to chance."""
        if not isinstance(self.baseline, AccuracyRow) or not isinstance(self.run, AccuracyRow):
            return False
        sides = [[(trial.sha256, trial.correct) for trial in side.trials] for side in (self.baseline, self.run)]
        return sides[0] == sides[1]


def matched_rows(
    baseline: Baseline, run: Baseline, book: RuleSet | None = None, *, against_dense: bool = False
) -> list[Pair]:
    """Every row of either side with its counterpart on the other, accuracies first.

    against_dense: the counterpart of a row of the run is the baseline's dense row of its model; the run's own dense
    row has none, of several the newest.
    """
    rules = book or RuleSet()
    return [
        *_matched("accuracy", baseline.accuracy, run.accuracy, rules, against_dense),
        *_matched("latency", baseline.latency, run.latency, rules, against_dense),
    ]


def name_of(row: AccuracyRow | LatencyRow) -> str:
    """What a row is called, such as "resnet50, sparse-gpt, Unstructured Sparsity 50%"."""
    return Key(*_cell(row)).name


def _matched(
    kind: Kind, baseline: Sequence[_Row], run: Sequence[_Row], book: RuleSet, against_dense: bool
) -> Iterator[Pair]:
    # What tells rows of one cell apart is part of their name only where a side has several: else it would hide that
    # another data set or device makes a row incomparable, by making it a missing and a new one.
    several = {cell for side in (baseline, run) for cell, count in Counter(map(_cell, side)).items() if count > 1}
    sized = {cell for side in (baseline, run) for cell, sizes in _sizes(side).items() if len(sizes) > 1}
    before: dict[Key, _Row] = _by_key(baseline, several, sized)
    now: dict[Key, _Row] = _by_key(run, several, sized)
    if against_dense:
        for key, row in now.items():
            if key.algorithm != "dense" or _dense_of(row, now) is not row:
                dense = _dense_of(row, before)
                yield Pair(kind, key, book.of(key), dense, row, "" if dense else "the baseline has no dense row of it")
        return
    for key in (*now, *(key for key in before if key not in now)):
        yield Pair(kind, key, book.of(key), before.get(key), now.get(key))


def _by_key(rows: Sequence[_Row], several: set[Cell], sized: set[Cell]) -> dict[Key, _Row]:
    """several: cells of several rows. sized: of these, those whose rows differ in what they were built for."""
    found = {}
    for row in rows:
        cell = _cell(row)
        told = [_context(row) if cell in several else "", _built_for(row) if cell in sized else ""]
        found[Key(*cell, context=", ".join(filter(None, told)))] = row
    return found


def _sizes(rows: Sequence[_Row]) -> dict[Cell, set[str]]:
    """By cell, what its rows were built for, of those that say it."""
    found: defaultdict[Cell, set[str]] = defaultdict(set)
    for row in rows:
        if built_for := _built_for(row):
            found[_cell(row)].add(built_for)
    return found


def _built_for(row: AccuracyRow | LatencyRow) -> str:
    """Of a latency; not known of one that an earlier version saved, or of a package that nobody built here."""
    if isinstance(row, AccuracyRow) or row.image_size is None:
        return ""
    return f"{row.classes} classes at {row.image_size} pixels"


def _dense_of(row: _Row, rows: dict[Key, _Row]) -> _Row | None:
    """The dense row of the same model: measured as `row` was, if there are several."""
    model, _, _, compute_units = _cell(row)
    found = [r for key, r in rows.items() if (key.model, key.compute_units) == (model, compute_units)]
    dense = [r for r in found if r.algorithm == "dense"]
    alike = [r for r in dense if _context(r) == _context(row)] or dense
    same = [r for r in alike if _built_for(r) == _built_for(row)] or alike
    return same[-1] if same else None


def _cell(row: AccuracyRow | LatencyRow) -> Cell:
    compute_units = row.runtime.compute_units if isinstance(row, LatencyRow) else ""
    return row.model, row.algorithm, row.config, compute_units


def _context(row: AccuracyRow | LatencyRow) -> str:
    runtime = f"{row.runtime.name} {row.runtime.precision}"
    if isinstance(row, AccuracyRow):
        return f"{row.suite}, data {row.images.fingerprint[:_SHOWN]}, {runtime} on {row.runtime.compute_units}"
    protocol = f"batch {row.protocol.batch_size}, concurrency {row.protocol.concurrency}"
    arrays = ", arrays" if row.protocol.array_inputs else ""
    return f"{row.device.name} ({row.device.chip}), {runtime}, {protocol}{arrays}"


def _conditions(row: AccuracyRow | LatencyRow) -> dict[str, tuple[object, str]]:
    """By name what has to be equal for a row to be compared (None: not known), and how it is told."""
    precision = (row.runtime.precision, row.runtime.precision)
    if isinstance(row, AccuracyRow):
        images = row.images
        return {
            "data set": (images.fingerprint, f"{images.spec} ({images.fingerprint[:_SHOWN]})"),
            "skipped images": (images.skipped, ", ".join(images.skipped) or "none"),
            "images": (images.count, str(images.count)),
            "preprocessing": (images.view, (images.view or USUAL).in_short()),
            "runtime": (row.runtime.name, row.runtime.name),
            "precision": precision,
            "compute units": (row.runtime.compute_units, row.runtime.compute_units),
        }
    device = row.device
    # More rounds are more data, not another measurement.
    protocol = row.protocol.model_dump(exclude={"rounds"})
    return {
        "device": ((device.name, device.chip), f"{device.name}, {device.chip}"),
        "os": ((device.os, device.os_version, device.os_build), " ".join((device.os, device.os_version))),
        "runtime": ((row.runtime.name, row.runtime.version), f"{row.runtime.name} {row.runtime.version}"),
        "precision": precision,
        "image size": (row.image_size, str(row.image_size)),
        "classes": (row.classes, str(row.classes)),
        "protocol": (protocol, ", ".join(f"{name} {value}" for name, value in protocol.items())),
        "low-power mode": (row.low_power, "on" if row.low_power else "off"),
        # From "serious" on, the system slows itself down.
        "thermal state": (row.thermal and row.thermal in ("serious", "critical"), str(row.thermal)),
    }
