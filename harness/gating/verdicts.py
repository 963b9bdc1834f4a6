"""The gate: a run against a baseline, row by row, each verdict with the evidence for it.

Verdicts follow from tests where there is something to test (accuracy by image and trial, latency by round) and from the
allowance alone where there is one value a side. It reads baselines and records only: no torch, no coremltools.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.gating.asked import Asked, dense_of
from coreml_prune_bench.gating.checks import WORST_FIRST, Check, Report, Row
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

_NS_PER_MS = 1e6


def gate(
    baseline: Baseline | None, run: Baseline, rules: RuleSet | None = None, *, against_dense: bool = False
) -> Report:
    """Compare a run with a baseline, row by row, and hold it to the absolute rules; None: to those alone.

    against_dense: compare each row of the run that is not dense with the baseline's dense row of its model instead.
    Raises BenchError for a rule that no row of the run is held to, and where there is no row at all.
    """
    book = rules or RuleSet()
    pairs = matched_rows(baseline or Baseline(measured=""), run, book, against_dense=against_dense)
    book.check_rows(pair.key for pair in pairs)
    dense = (*(baseline.accuracy if baseline else ()), *run.accuracy)
    asked = {(pair.kind, pair.key): _asked(pair, dense, book.base.alpha) for pair in pairs}
    _check_asked(pairs, asked, run.failures)
    pairs = [p for p in pairs if set(CHECKS[p.kind]) & set(p.rules.checks) or asked[p.kind, p.key]]
    if baseline is None:
        pairs = [pair for pair in pairs if asked[pair.kind, pair.key]]
    unless_asked: Verdict | None = None if baseline is None else "missing" if against_dense else "new"
    failed = list(_failed_besides(run.failures, pairs, book, unless_asked))
    if not pairs and not failed:
        raise BenchError("nothing to compare: neither side has a row that the rules check")
    tests = [p for values in asked.values() for one in values if (p := one.p_missed) is not None]
    evidence, missed, count = _evidence([pair for pair in pairs if pair.has_evidence], tests, book.base.alpha)
    corrected = iter(missed)
    absolute = {
        place: tuple(
            one.check(book.base.alpha, next(corrected) if one.p_missed is not None else None) for one in values
        )
        for place, values in asked.items()
    }
    rows = [
        _judged(pair, evidence.get((pair.kind, pair.key)), absolute[pair.kind, pair.key], run.failures)
        for pair in pairs
    ]
    return Report(tuple(sorted([*rows, *failed], key=_place)), book.base.alpha, count)


def _place(row: Row) -> tuple[bool, int]:
    """What fails first, then the worst."""
    return not row.fails, WORST_FIRST.index(row.verdict)


def _failed_besides(
    failures: Sequence[Failure], pairs: Sequence[Pair], book: RuleSet, unless_asked: Verdict | None
) -> Iterator[Row]:
    """Cells that were tried and failed, where no row of the baseline is there to be missing.

    unless_asked: the verdict where no absolute rule is about such a row; None: it is left out.
    """
    told = {_cell(pair.kind, pair.key) for pair in pairs if pair.run is None}
    for failure in failures:
        kind, key = failure.kind, Key(failure.model, failure.algorithm, failure.config)
        rules = book.of(key)
        is_asked = any(rule.quantity.kind == kind for rule in rules.require)
        verdict: Verdict | None = "missing" if is_asked else unless_asked
        is_compared = bool(set(CHECKS[kind]) & set(rules.checks))
        if _cell(kind, key) not in told and verdict is not None and (is_asked or is_compared):
            yield Row(key, kind, verdict, verdict in rules.fail, (), _said(failure))


def _cell(kind: Kind, of: Key | Failure) -> tuple[Kind, str, str, str]:
    return kind, of.model, of.algorithm, of.config


def _said(failure: Failure) -> str:
    return f"failed in the run: {failure.reason}"


# --- absolute rules


def _asked(pair: Pair, rows: Sequence[AccuracyRow], alpha: float) -> list[Asked]:
    """rows: those among which its dense one is, the run's last."""
    row = pair.run
    if row is None:
        return []
    dense = dense_of(row, rows)
    values = [(rule, rule.value(row, dense, alpha)) for rule in pair.rules.require]
    return [Asked(rule, value) for rule, value in values if value is not None]


def _check_asked(
    pairs: Sequence[Pair], asked: Mapping[tuple[Kind, Key], list[Asked]], failures: Sequence[Failure]
) -> None:
    """Raises BenchError for an absolute rule that is asked of rows and that none has anything of."""
    # What failed or is missing is told as such.
    absent = {*(failure.kind for failure in failures), *(pair.kind for pair in pairs if pair.run is None)}
    held = {one.rule for values in asked.values() for one in values}
    for rule in dict.fromkeys(rule for pair in pairs for rule in pair.rules.require):
        if rule not in held and rule.quantity.kind not in absent:
            raise BenchError(f"{rule.text}: no row is held to it, for the run has none with {rule.quantity.whose}")


# --- tests, and what they say


@dataclass(frozen=True)
class _Evidence:
    """A finding, and p-values that it is worse and better, corrected for the number of tests. note: what hinders it.

    p_alone: the smaller of the two, not corrected.
    """

    finding: Finding
    p_worse: float
    p_better: float
    alpha: float
    note: str
    p_alone: float

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


def _evidence(
    pairs: list[Pair], missed: list[float], alpha: float
) -> tuple[dict[tuple[Kind, Key], _Evidence], list[float], int]:
    """The evidence of each pair, the p-values of missed absolute rules, corrected, and the number of tests.

    That something is worse, and that it is better, are two families of tests, each corrected on its own. The same
    package with the same predictions is no test, so it takes no power from the others.
    """
    tested = [pair for pair in pairs if not pair.is_same_package]
    tests = len(tested) + len(missed)
    found = [_finding(pair, alpha, tests) for pair in tested]
    slower_is_worse = [pair.kind == "latency" for pair in tested]
    alone = [(f.p_above, f.p_below) if slower else (f.p_below, f.p_above)
             for f, slower in zip(found, slower_is_worse, strict=True)]  # fmt: skip
    worse = holm([*(one for one, _ in alone), *missed])
    better = holm([other for _, other in alone])
    evidence = {
        (pair.kind, pair.key): _Evidence(
            finding, p_worse, p_better, alpha, _hindrance(pair, alpha, tests), min(uncorrected)
        )
        for pair, finding, p_worse, p_better, uncorrected in zip(
            tested, found, worse[: len(found)], better, alone, strict=True
        )
    }
    for pair in pairs:
        if pair.is_same_package:
            finding = replace(_finding(pair, alpha, max(1, tests)), p_within=0.0)
            evidence[pair.kind, pair.key] = _Evidence(finding, 1.0, 1.0, alpha, "the same package and predictions", 1.0)
    return evidence, worse[len(found) :], tests


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


def _judged(pair: Pair, evidence: _Evidence | None, absolute: tuple[Check, ...], failures: Sequence[Failure]) -> Row:
    def row(verdict: Verdict, reason: str = "", checks: tuple[Check, ...] = ()) -> Row:
        return Row(pair.key, pair.kind, verdict, verdict in pair.rules.fail, checks, reason)

    if pair.run is None:
        return row("missing", _why_missing(pair, failures))

    def of(checks: tuple[Check, ...], besides: tuple[Verdict, ...] = (), reason: str = "") -> Row:
        return row(min((*besides, *(check.verdict for check in checks)), key=WORST_FIRST.index), reason, checks)

    failed = _failed_trials(pair.run)
    besides: tuple[Verdict, ...] = ("missing",) if failed else ()
    if pair.baseline is None:
        if pair.absent:
            return of(absolute, (*besides, "not comparable"), failed or pair.absent)
        return of(absolute, besides, failed) if absolute or failed else row("new", "not in the baseline")
    if pair.differences:
        return of(absolute, (*besides, "not comparable"), "; ".join(filter(None, (failed, *pair.differences))))
    checks = (*_checks(pair, evidence), *absolute)
    if not checks and not failed:
        return row("cannot tell", "what the rules check was not measured on both sides")
    return of(checks, besides, failed)


def _failed_trials(row: AccuracyRow | LatencyRow) -> str:
    """Of a row with others that did not fail."""
    if not isinstance(row, AccuracyRow) or not row.failed:
        return ""
    return f"{len(row.failed)} of {len(row.failed) + len(row.trials)} trials failed in the run: {row.failed[0]}"


def _why_missing(pair: Pair, failures: Sequence[Failure]) -> str:
    own = _cell(pair.kind, pair.key)
    return next((_said(failure) for failure in failures if _cell(failure.kind, failure) == own), "not in the run")


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
        p_alone=evidence.p_alone,
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
