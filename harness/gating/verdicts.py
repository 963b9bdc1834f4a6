"""The gate: a run against a baseline, row by row, each verdict with the evidence for it.

Verdicts follow from tests where there is something to test (accuracy by image and trial, latency by round) and from the
allowance alone where there is one value a side. It reads baselines and records only: no torch, no coremltools.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.gating.limits import CHECKS, Key, Kind, Metric, Rules, RuleSet, Verdict
from coreml_prune_bench.gating.pairs import Pair, matched_rows
from coreml_prune_bench.gating.rows import AccuracyRow, Baseline, Failure, LatencyRow
from coreml_prune_bench.records.statistics import (
    Finding,
    compare_latencies,
    compare_predictions,
    holm,
    smallest_p,
)

_WORST_FIRST: tuple[Verdict, ...] = ("worse", "missing", "not comparable", "cannot tell", "new", "better", "same")
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class Check:
    """One metric of a row. baseline and run are in `unit`; effect, interval and what was detectable in `effect_unit`.

    effect: the run against the baseline; which sign is good depends on the metric. low, high: its interval at
    confidence 1 - 2 alpha. p: of worse or of better, whichever is likelier, corrected for the number of tests (Holm).
    detectable: the smallest loss that would have been seen with a power of 80 %. None where there was no test.
    """

    metric: Metric
    verdict: Verdict
    unit: str
    baseline: float
    run: float
    effect_unit: str
    effect: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    detectable: float | None = None
    method: str = "one value a side: no test"
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A row and its verdict, the worst of its checks. reason: why there are none."""

    key: Key
    kind: Kind
    verdict: Verdict
    fails: bool
    checks: tuple[Check, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """A whole gate. tests: how many were made, for which p-values are corrected."""

    rows: tuple[Row, ...]
    alpha: float
    tests: int

    @property
    def exit_code(self) -> int:
        """0: passed. 1: a row has a verdict that fails. 2: none has, but a row could not be compared."""
        if any(row.fails for row in self.rows):
            return 1
        return 2 if any(row.verdict == "not comparable" for row in self.rows) else 0

    @property
    def counts(self) -> dict[Verdict, int]:
        """Rows by verdict, the worst first."""
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in _WORST_FIRST if found[verdict]}


def gate(baseline: Baseline, run: Baseline, rules: RuleSet | None = None, *, against_dense: bool = False) -> Report:
    """Compare a run with a baseline, row by row.

    against_dense: compare each row of the run that is not dense with the baseline's dense row of its model instead.
    Raises BenchError for a rule about a row that does not exist, and where there is no row at all.
    """
    book = rules or RuleSet()
    pairs = matched_rows(baseline, run, book, against_dense=against_dense)
    book.check_rows(pair.key for pair in pairs)
    pairs = [pair for pair in pairs if set(CHECKS[pair.kind]) & set(pair.rules.checks)]
    if not pairs:
        raise BenchError("nothing to compare: neither side has a row that the rules check")
    evidence, tests = _evidence([pair for pair in pairs if pair.has_evidence], book.base.alpha)
    rows = tuple(_judged(pair, evidence.get((pair.kind, pair.key)), run.failures) for pair in pairs)
    return Report(rows, book.base.alpha, tests)


# --- tests, and what they say


@dataclass(frozen=True)
class _Evidence:
    """A finding, and p-values that it is worse and better, corrected for the number of tests. note: what hinders it."""

    finding: Finding
    p_worse: float
    p_better: float
    alpha: float
    note: str

    @property
    def verdict(self) -> Verdict:
        if self.p_worse <= self.alpha:
            return "worse"
        if self.p_better <= self.alpha:
            return "better"
        return "same" if self.finding.p_within <= self.alpha else "cannot tell"

    @property
    def p(self) -> float:
        return min(self.p_worse, self.p_better)


def _evidence(pairs: list[Pair], alpha: float) -> tuple[dict[tuple[Kind, Key], _Evidence], int]:
    """The evidence of each pair, and the number of tests.

    That something is worse, and that it is better, are two families of tests, each corrected on its own. The same
    package with the same predictions is no test, so it takes no power from the others.
    """
    tested = [pair for pair in pairs if not pair.is_same_package]
    found = [_finding(pair, alpha, len(tested)) for pair in tested]
    slower_is_worse = [pair.kind == "latency" for pair in tested]
    worse = holm([f.p_above if slower else f.p_below for f, slower in zip(found, slower_is_worse, strict=True)])
    better = holm([f.p_below if slower else f.p_above for f, slower in zip(found, slower_is_worse, strict=True)])
    evidence = {
        (pair.kind, pair.key): _Evidence(finding, p_worse, p_better, alpha, _hindrance(pair, alpha, len(tested)))
        for pair, finding, p_worse, p_better in zip(tested, found, worse, better, strict=True)
    }
    for pair in pairs:
        if pair.is_same_package:
            finding = replace(_finding(pair, alpha, max(1, len(tested))), p_within=0.0)
            evidence[pair.kind, pair.key] = _Evidence(finding, 1.0, 1.0, alpha, "the same package and predictions")
    return evidence, len(tested)


def _finding(pair: Pair, alpha: float, tests: int) -> Finding:
    if isinstance(pair.baseline, AccuracyRow) and isinstance(pair.run, AccuracyRow):
        rule = pair.rules.accuracy
        return compare_predictions(
            pair.baseline.correct,
            pair.run.correct,
            allowed=rule.allowed_loss / 100,
            margin=max(rule.same_within, rule.allowed_loss) / 100,
            alpha=alpha,
            tests=tests,
        )
    allowed = pair.rules.latency.allowed_percent / 100
    return compare_latencies(*_round_medians(pair), allowed=allowed, margin=allowed, alpha=alpha, tests=tests)


def _round_medians(pair: Pair) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nanoseconds [rounds] of each side: as the runtime says, or around the calls where one of them does not say."""
    sides = [row.rounds for row in (pair.baseline, pair.run) if isinstance(row, LatencyRow)]
    model = [[one.model_median_ns for one in rounds if one.model_median_ns is not None] for rounds in sides]
    if [len(medians) for medians in model] == [len(rounds) for rounds in sides]:
        before, now = model
    else:
        before, now = [[one.call_median_ns for one in rounds] for rounds in sides]
    return np.array(before), np.array(now)


def _hindrance(pair: Pair, alpha: float, tests: int) -> str:
    """Why no difference whatever could be significant, if so."""
    if pair.kind == "accuracy":
        return ""
    before, now = (len(side) for side in _round_medians(pair))
    lowest = smallest_p(before, now)
    if lowest <= alpha / tests:
        return ""
    enough = next(rounds for rounds in itertools.count(2) if smallest_p(rounds, rounds) <= alpha / tests)
    return (
        f"too few rounds: {before} and {now} give no p below {lowest:.2g}, and {tests} tests need {alpha / tests:.2g}; "
        f"{enough} a side would do"
    )


# --- verdicts


def _judged(pair: Pair, evidence: _Evidence | None, failures: Sequence[Failure]) -> Row:
    def row(verdict: Verdict, reason: str = "", checks: tuple[Check, ...] = ()) -> Row:
        return Row(pair.key, pair.kind, verdict, verdict in pair.rules.fail, checks, reason)

    if pair.run is None:
        return row("missing", _why_missing(pair, failures))
    if pair.baseline is None:
        return row("not comparable", pair.absent) if pair.absent else row("new", "not in the baseline")
    if pair.differences:
        return row("not comparable", "; ".join(pair.differences))
    checks = tuple(_checks(pair, evidence))
    if not checks:
        return row("cannot tell", "what the rules check was not measured on both sides")
    return row(min((check.verdict for check in checks), key=_WORST_FIRST.index), checks=checks)


def _why_missing(pair: Pair, failures: Sequence[Failure]) -> str:
    cell = (pair.kind, pair.key.model, pair.key.algorithm, pair.key.config)
    reasons = [f.reason for f in failures if (f.kind, f.model, f.algorithm, f.config) == cell]
    return f"failed in the run: {reasons[0]}" if reasons else "not in the run"


def _checks(pair: Pair, evidence: _Evidence | None) -> Iterator[Check]:
    old, new, rules = pair.baseline, pair.run, pair.rules
    if isinstance(old, AccuracyRow) and isinstance(new, AccuracyRow):
        if evidence:
            yield _tested("accuracy", "%", (100 * old.top1, 100 * new.top1), "points", evidence)
        if "size" in rules.checks:
            bytes_ = (old.weight_bytes, new.weight_bytes)
            yield _single("size", "bytes", *bytes_, "%", _percent(*bytes_), rules.size.allowed_percent, worse=1)
        if "sparsity" in rules.checks:
            shares = (100 * old.whole_model_sparsity, 100 * new.whole_model_sparsity)
            yield _points("sparsity", *shares, rules.sparsity.allowed_points)
    elif isinstance(old, LatencyRow) and isinstance(new, LatencyRow):
        if evidence:
            before, now = (float(np.median(side)) / _NS_PER_MS for side in _round_medians(pair))
            yield _tested("latency", "ms", (before, now), "%", evidence)
        if "neural_engine" in rules.checks and old.planned and new.planned:
            shares = (_neural_engine_percent(old.planned), _neural_engine_percent(new.planned))
            yield _points("neural_engine", *shares, rules.neural_engine.allowed_points)
        if "load" in rules.checks and (times := _load_times(old, new)):
            percent = _percent(*times)
            yield _single("load", "ms", *times, "%", percent, rules.load.allowed_percent, worse=1)
        yield from _besides(old, new, rules)


def _besides(old: LatencyRow, new: LatencyRow, rules: Rules) -> Iterator[Check]:
    """Of what both sides have measured."""
    measured: list[tuple[Metric, str, float | None, float | None, float]] = [
        ("wake", "ms", _in_ms(old.wake_ns), _in_ms(new.wake_ns), rules.wake.allowed_percent),
        ("energy", "mJ", old.energy_mj, new.energy_mj, rules.energy.allowed_percent),
        ("memory", "bytes", old.predict_peak_bytes, new.predict_peak_bytes, rules.memory.allowed_percent),
    ]
    for metric, unit, before, now, allowed in measured:
        if metric in rules.checks and before is not None and now is not None:
            yield _single(metric, unit, before, now, "%", _percent(before, now), allowed, worse=1)
    if "units" in rules.checks and old.off_share is not None and new.off_share is not None:
        before, now = 100 * old.off_share, 100 * new.off_share
        yield _single("units", "%", before, now, "points", now - before, rules.units.allowed_points, worse=1)


def _in_ms(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / _NS_PER_MS


def _tested(metric: Metric, unit: str, values: tuple[float, float], effect_unit: str, evidence: _Evidence) -> Check:
    found = evidence.finding
    return Check(
        metric,
        evidence.verdict,
        unit,
        *values,
        effect_unit,
        100 * found.effect,
        low=100 * found.low,
        high=100 * found.high,
        p=evidence.p,
        detectable=None if found.detectable is None else 100 * found.detectable,
        method=found.method,
        note=evidence.note,
    )


def _points(metric: Metric, old: float, new: float, allowed: float) -> Check:
    """A share of which less is worse, in per cent."""
    return _single(metric, "%", old, new, "points", new - old, allowed, worse=-1)


def _single(
    metric: Metric, unit: str, old: float, new: float, effect_unit: str, effect: float, allowed: float, *, worse: int
) -> Check:
    """One value a side. worse: the sign of an effect that is."""
    loss = worse * effect
    verdict: Verdict = "worse" if loss > allowed else "better" if loss < -allowed else "same"
    return Check(metric, verdict, unit, old, new, effect_unit, effect)


def _percent(old: float, new: float) -> float:
    """By how much `new` is more than `old`."""
    return 100 * (new - old) / (old or 1)


def _neural_engine_percent(planned: dict[str, int]) -> float:
    return 100 * planned.get("neural_engine", 0) / sum(planned.values())


def _load_times(old: LatencyRow, new: LatencyRow) -> tuple[float, float] | None:
    """Milliseconds: cached loads, or first ones where a side has no cached one."""
    if old.cached_load_ns and new.cached_load_ns:
        return old.cached_load_ns / _NS_PER_MS, new.cached_load_ns / _NS_PER_MS
    if old.cold_load_ns and new.cold_load_ns:
        return old.cold_load_ns / _NS_PER_MS, new.cold_load_ns / _NS_PER_MS
    return None
