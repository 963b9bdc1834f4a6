"""How often the gate alarms though nothing changed, and how often it finds what did: simulated, as two tables.

    python -m tests.gating.simulation [GATES] > results/gate/simulation.md

Every gate is the real one, on made-up rows. Predictions change as those of real networks did: the share of images that
only one of two networks gets right is taken from results/imagenet-sample and results/gate/pairs.json.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal, special
from tabulate import tabulate

from coreml_prune_bench.gating.baseline import from_records, read_baseline, read_results
from coreml_prune_bench.gating.checks import Report
from coreml_prune_bench.gating.limits import Rules, RuleSet
from coreml_prune_bench.gating.packed import packed
from coreml_prune_bench.gating.rows import AccuracyRow, Baseline, LatencyRow, RoundSummary
from coreml_prune_bench.gating.verdicts import gate
from tests.factories import accuracy_record, latency_record

ALPHA = 0.05
IMAGES = 5000
ACCURACY = 0.8
LOSS = 0.01
ROWS = 9
ROUNDS = 6
SAMPLES = 100
WARM_UP = 30

RESULTS = Path(__file__).parents[2] / "results"
Bits = NDArray[np.bool_]
Draw = np.random.Generator


def main(gates: int) -> None:
    """Print both tables, made of so many gates a line."""
    sys.stdout.write(f"{_INTRODUCTION.format(gates=gates)}\n\n## Accuracy\n\n{_ACCURACY}\n\n")
    sys.stdout.write(f"{_table(accuracy_lines(gates))}\n\n## Latency\n\n{_LATENCY}\n\n")
    sys.stdout.write(f"{_table(latency_lines(gates))}\n")


_INTRODUCTION = """# What the gate finds, and how often it is wrong

Made by `python -m tests.gating.simulation`: {gates:,} simulated gates a line, each by the real gate at its default
alpha of 5 %. "Alarms" is the share of gates that call any row worse: at most 5 % where nothing changed."""

_ACCURACY = f"""{IMAGES:,} images, {100 * ACCURACY:.0f} % of them right in the baseline, no allowed loss. "Changed" is
the share of images that only one side gets right. Named pairs are real networks, both ResNet50 on the 700 images of the
sample, that differ by about a point (in brackets); the share is theirs, the loss simulated is one point.

Beside the gate, on the same draws: a comparison that does not pair (the two-proportion z test at the same level), and
of several trials the first ones alone."""

_LATENCY = f"""{ROWS} rows a gate and {ROUNDS} rounds of {SAMPLES} calls, visited in the order of `latency`, each visit
after {WARM_UP} calls that do not count; each kind of noise is described in the script. In one session, both versions of
each package are visited in turns, so that they share the drift; of two sessions, each has its own. No test can tell a
drift that only one session has from a slower package: the default allowance of 5 % is for that, and lines with 0 % show
what happens without.

Rounds count as independent. The last line shows where they are not: few rows, visited without a pause or a warm-up, and
noise that outlasts the time between two visits.

Beside the gate, on the same draws: Mann-Whitney on all calls of the first row instead of on rounds. "Covered" is how
often the 90 % interval of the first row, a bootstrap over few rounds, held the truth."""


# --- accuracy


@dataclass(frozen=True)
class _Pair:
    """Two real networks: the share of images that only one gets right, and the difference of accuracy in points."""

    name: str
    changed: float
    points: float


def real_pairs() -> list[_Pair]:
    """ResNet50 on the sample: networks that differ by about a point, and one recipe against another."""
    sample, more = read_results(RESULTS / "imagenet-sample"), read_baseline(RESULTS / "gate" / "pairs.json")
    rows = {
        (row.algorithm, row.config): row.correct[0]
        for row in (*more.accuracy, *sample.accuracy)
        if row.model == "resnet50"
    }
    dense, half = ("dense", "Float16"), "Unstructured Sparsity 50%"
    again = "BatchNorm re-estimated"
    chosen = (
        ("dense, SparseGPT 40 %", dense, ("sparse-gpt", f"Unstructured Sparsity 40%, {again}")),
        ("dense, post-training 20 %", dense, ("post-training", "Unstructured Sparsity 20%")),
        ("dense, post-training 25 %", dense, ("post-training", "Unstructured Sparsity 25%")),
        ("SparseGPT 50 %, its BatchNorm re-estimated", ("sparse-gpt", half), ("sparse-gpt", f"{half}, {again}")),
        (
            "post-training 30 %, SparseGPT 40 %",
            ("post-training", "Unstructured Sparsity 30%"),
            ("sparse-gpt", f"Unstructured Sparsity 40%, {again}"),
        ),
    )
    return [
        _Pair(name, float((rows[a] != rows[b]).mean()), 100 * float(rows[b].mean() - rows[a].mean()))
        for name, a, b in chosen
    ]


def accuracy_lines(gates: int) -> Iterator[dict[str, str]]:
    """The table's lines: without a change, with a loss of a point, and several trials."""
    pairs = real_pairs()
    yield _accuracy_line("nothing changed", pairs[0].changed, 0, gates)
    yield _accuracy_line("nothing changed, 9 rows", pairs[0].changed, 0, gates, rows=9)
    yield _accuracy_line("nothing changed, 700 images", pairs[0].changed, 0, gates, images=700)
    for pair in pairs:
        what = f"1 point lost, changed as {pair.name} ({pair.points:+.2f})"
        yield _accuracy_line(what, pair.changed, LOSS, gates)
    yield _accuracy_line(
        f"1 point lost in 1 of 9 rows, changed as {pairs[0].name}", pairs[0].changed, LOSS, gates, rows=9
    )
    for spread in (0.0, 0.007):
        yield _trials_line(f"nothing changed, 3 trials a side, spread {100 * spread:g} points", spread, 0, gates)
    for loss in (LOSS, 0.03):
        what = f"3 trials a side, spread 0.7 points, {100 * loss:g} {'point' if loss == LOSS else 'points'} lost"
        yield _trials_line(what, 0.007, loss, gates)


def _accuracy_line(
    what: str, changed: float, loss: float, gates: int, *, rows: int = 1, images: int = IMAGES
) -> dict[str, str]:
    """The loss, if any, is in the first row."""
    draw = np.random.default_rng(0)
    alarms = unpaired = 0
    for _ in range(gates):
        sides = [_changed(draw, images, changed, loss if row == 0 else 0.0) for row in range(rows)]
        alarms += _alarm(_gate_of([[before] for before, _ in sides], [[after] for _, after in sides]))
        unpaired += min(_unpaired_p(*side) for side in sides) <= ALPHA / rows
    return _accuracy_cells(what, f"{100 * changed:.1f} %", alarms / gates, "unpaired", unpaired / gates)


def _trials_line(what: str, spread: float, loss: float, gates: int) -> dict[str, str]:
    """Trials of one recipe differ by `spread`, and in 6 % of the images beside."""
    draw = np.random.default_rng(0)
    alarms = alone = 0
    for _ in range(gates):
        hard = draw.random(IMAGES)
        shares = ACCURACY + draw.normal(0, spread, 6) - np.repeat([0, loss], 3)
        # An image is hard for all trials alike, and a little harder for some.
        trials = [0.88 * hard + 0.12 * draw.random(IMAGES) < share for share in shares]
        alarms += _alarm(_gate_of([trials[:3]], [trials[3:]]))
        alone += _alarm(_gate_of([trials[:1]], [trials[3:4]]))
    return _accuracy_cells(what, "-", alarms / gates, "first trials alone", alone / gates)


def _accuracy_cells(what: str, changed: str, alarms: float, other: str, others: float) -> dict[str, str]:
    return {"What": what, "Changed": changed, "Alarms": _percent(alarms), "Instead": f"{other}: {_percent(others)}"}


def _changed(draw: Draw, images: int, changed: float, loss: float) -> tuple[Bits, Bits]:
    """Predictions before and after, of which `changed` differ and `loss` more are lost than gained, on the average."""
    right = draw.random(images) < ACCURACY
    lost, gained = (changed + loss) / 2 / ACCURACY, (changed - loss) / 2 / (1 - ACCURACY)
    flipped = draw.random(images) < np.where(right, lost, gained)
    return right, right ^ flipped


_ACCURACY_ROW = from_records([accuracy_record([True])]).accuracy[0]


def _gate_of(before: list[list[Bits]], after: list[list[Bits]]) -> Report:
    """Rows of trials, each bool [images]."""

    def side(rows: list[list[Bits]], name: str) -> Baseline:
        return Baseline(measured="", accuracy=tuple(_row(number, row, name) for number, row in enumerate(rows)))

    return gate(side(before, "before"), side(after, "after"))


def _row(number: int, trials: list[Bits], name: str) -> AccuracyRow:
    template = _ACCURACY_ROW.trials[0]
    made = tuple(
        template.model_copy(update={"correct": packed(bits), "sha256": f"{name}{trial}"})
        for trial, bits in enumerate(trials)
    )
    images = _ACCURACY_ROW.images.model_copy(update={"count": len(trials[0])})
    return _ACCURACY_ROW.model_copy(update={"model": f"m{number}", "trials": made, "images": images})


def _unpaired_p(before: Bits, after: Bits) -> float:
    pooled = (before.mean() + after.mean()) / 2
    error = np.sqrt(2 * pooled * (1 - pooled) / len(before))
    return float(special.ndtr((after.mean() - before.mean()) / error))


# --- latency

Noise = Callable[[Draw, int], NDArray[np.float64]]
"""Of so many calls in time's order: the logarithm of what each takes beside its due."""


def independent(draw: Draw, calls: int) -> NDArray[np.float64]:
    """3 % a call."""
    return draw.normal(0, 0.03, calls)


def autocorrelated(draw: Draw, calls: int) -> NDArray[np.float64]:
    """3 %, which fades over 50 calls, and 1 % a call."""
    steps = draw.normal(0, 0.03 * np.sqrt(1 - 0.98**2), calls)
    steps[0] = draw.normal(0, 0.03)
    return signal.lfilter([1], [1, -0.98], steps) + draw.normal(0, 0.01, calls)


def drifting(draw: Draw, calls: int) -> NDArray[np.float64]:
    """Up to 8 % slower at the end than at the start, on a way that wanders by 2 %, and 1 % a call."""
    wander = np.cumsum(draw.normal(0, 0.02 / np.sqrt(calls), calls))
    return draw.uniform(0, 0.08) * np.linspace(0, 1, calls) + wander + draw.normal(0, 0.01, calls)


def bimodal(draw: Draw, calls: int) -> NDArray[np.float64]:
    """15 % slower for a third of the time, 100 calls at a stretch on the average, and 1 % a call."""
    is_slow = (np.arange(calls) % 2 == 0) == (draw.random() < 1 / 3)
    stretches = draw.geometric(np.where(is_slow, 1 / 100, 1 / 200))
    return 0.15 * np.repeat(is_slow, stretches)[:calls] + draw.normal(0, 0.01, calls)


def everything(draw: Draw, calls: int) -> NDArray[np.float64]:
    """All of it at once."""
    return autocorrelated(draw, calls) + drifting(draw, calls) + bimodal(draw, calls)


@dataclass(frozen=True)
class _Plan:
    """How latencies are taken. shared: both sides in one session. warm_up: calls of each visit that do not count."""

    shared: bool
    rows: int = ROWS
    rounds: int = ROUNDS
    warm_up: int = WARM_UP


def latency_lines(gates: int) -> Iterator[dict[str, str]]:
    """The table's lines: each kind of noise without a change, then what is found."""
    noises: tuple[Noise, ...] = (independent, autocorrelated, drifting, bimodal, everything)
    one, two = _Plan(shared=True), _Plan(shared=False)
    for noise in noises:
        yield _latency_line("nothing changed, one session", noise, one, gates)
    for noise in noises:
        yield _latency_line("nothing changed, two sessions", noise, two, gates)
    for noise in (drifting, everything):
        yield _latency_line("nothing changed, two sessions", noise, two, gates, allowed=5)
    for noise, ratio, allowed in (
        (independent, 1.03, 0.0),
        (autocorrelated, 1.1, 0.0),
        (autocorrelated, 1.15, 5.0),
        (drifting, 1.15, 5.0),
    ):
        what = f"1 of {ROWS} rows slower by {100 * (ratio - 1):.0f} %, one session"
        yield _latency_line(what, noise, one, gates, allowed=allowed, ratio=ratio)
    hurried = _Plan(shared=False, rows=3, rounds=10, warm_up=0)
    yield _latency_line("nothing changed, two hurried sessions of 3 rows", bimodal, hurried, gates)


def _latency_line(
    what: str, noise: Noise, plan: _Plan, gates: int, *, allowed: float = 0, ratio: float = 1
) -> dict[str, str]:
    """The slow-down, if any, is in the first row."""
    draw = np.random.default_rng(0)
    rules = RuleSet(Rules.model_validate({"latency": {"allowed_percent": allowed}}))
    alarms = naive = covered = 0
    for _ in range(gates):
        if plan.shared:
            visits = _session(draw, noise, plan, 2 * plan.rows)
            before, after = visits[::2], visits[1::2]
        else:
            before, after = (_session(draw, noise, plan, plan.rows) for _ in range(2))
        after[0] *= ratio
        report = gate(_latencies(before), _latencies(after), rules)
        alarms += _alarm(report)
        naive += _all_calls_p(before[0].ravel(), after[0].ravel() / (1 + allowed / 100)) <= ALPHA
        (check,) = report.rows[0].checks
        covered += check.low <= 100 * (ratio - 1) <= check.high  # type: ignore[operator]
    return {
        "What": what,
        "Noise": noise.__name__,
        "Allowed": f"{allowed:g} %",
        "Alarms": _percent(alarms / gates),
        "All Calls Instead": _percent(naive / gates),
        "Covered": _percent(covered / gates),
    }


def _session(draw: Draw, noise: Noise, plan: _Plan, visits: int) -> NDArray[np.float64]:
    """Nanoseconds [visits a round, rounds, calls] of packages that take 2 ms, each visited once a round.

    In a new order in each round, but each second round in that of the round before, backwards.
    """
    calls = plan.warm_up + SAMPLES
    logs = noise(draw, plan.rounds * visits * calls).reshape(plan.rounds, visits, calls)[:, :, plan.warm_up :]
    taken = np.empty_like(logs)
    order = np.arange(visits)
    for number, one in enumerate(logs):
        order = order[::-1] if number % 2 else draw.permutation(visits)
        taken[number, order] = one
    return 2e6 * np.exp(taken.swapaxes(0, 1))


_LATENCY_ROW = from_records([], [latency_record([[1]])]).latency[0]


def _latencies(packages: NDArray[np.float64]) -> Baseline:
    return Baseline(measured="", latency=tuple(_latency_row(n, one) for n, one in enumerate(packages)))


def _latency_row(number: int, rounds: NDArray[np.float64]) -> LatencyRow:
    summaries = tuple(
        RoundSummary(predictions=SAMPLES, call_median_ns=median, model_median_ns=median)
        for median in np.median(rounds, axis=1).tolist()
    )
    return _LATENCY_ROW.model_copy(update={"model": f"m{number}", "rounds": summaries})


def _all_calls_p(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """One-sided Mann-Whitney on single calls, by the normal approximation."""
    ranks = np.argsort(np.argsort(np.concatenate([before, after]))) + 1
    sizes = len(before), len(after)
    wins = ranks[sizes[0] :].sum() - sizes[1] * (sizes[1] + 1) / 2
    deviation = np.sqrt(sizes[0] * sizes[1] * (sum(sizes) + 1) / 12)
    return float(special.ndtr(-(wins - sizes[0] * sizes[1] / 2) / deviation))


def _alarm(report: Report) -> bool:
    return any(row.verdict == "worse" for row in report.rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _table(lines: Iterator[dict[str, str]]) -> str:
    return tabulate(list(lines), headers="keys", tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
