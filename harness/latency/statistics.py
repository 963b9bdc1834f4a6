"""What the samples of a latency record say.

The unit of repetition is the round, not the call: calls of one round share its clock speeds and temperature, so taking
them for independent would make every interval too narrow (Kalibera and Jones, "Rigorous benchmarking in reasonable
time", ISMM 2013). The median that is reported is the median over the rounds of each round's median.

What two runs say of a change is `records.statistics`' business; here is one run, and rows that were measured in turns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from coreml_prune_bench.records.latency import ENERGY_COMPONENTS, EnergyWindow, LatencyRecord, Round, State, Wake

TOTAL = "total"
"""Of energy: all components together."""

CONFIDENCE = 0.95
DISAGREEMENT = 0.05
"""Rounds disagree, and a drift is worth a warning, from this share of the median on."""

_RESAMPLES = 2000
_SEED = 0
_FEWEST_FOR_P90, _FEWEST_FOR_P99 = 10, 100

# Two speeds: both kinds of calls are no exception, they are apart, and hardly a call is between them.
_FEWEST_FOR_SPEEDS = 20
_SMALLER_SHARE = 0.1
_APART = 0.05
_ASHMAN_D = 5.0

Durations = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """Times in nanoseconds: of the model as the runtime told them, of the call where it did not (`model_time`).

    p90 and p99: None below 10 and 100 predictions. call_median_ns: around the calls. throughput: samples a second, back
    to back. drift: from the first round to the last, as a fraction of the median. disagreement: of the round medians,
    highest minus lowest, as a fraction of the median.
    """

    median_ns: Interval
    p90_ns: float | None
    p99_ns: float | None
    min_ns: float
    call_median_ns: float
    model_time: bool
    predictions: int
    throughput: float
    drift: float
    disagreement: float
    warnings: tuple[str, ...]


def summarize(record: LatencyRecord) -> Summary:
    """The statistics of a measured record."""
    rounds = [durations(one) for one in record.rounds]
    medians = np.array([np.median(one) for one in rounds])
    everything = np.concatenate(rounds)
    calls = np.concatenate([np.array(one.call_ns) for one in record.rounds])
    median = float(np.median(medians))
    drift = drift_of(medians)
    disagreement = float(np.ptp(medians) / median) if median else 0.0
    at_a_time = record.protocol.batch_size * record.protocol.concurrency
    return Summary(
        median_ns=_with_interval(median, rounds),
        p90_ns=float(np.percentile(everything, 90)) if len(everything) >= _FEWEST_FOR_P90 else None,
        p99_ns=float(np.percentile(everything, 99)) if len(everything) >= _FEWEST_FOR_P99 else None,
        min_ns=float(everything.min()),
        call_median_ns=float(np.median(calls)),
        model_time=all(one.model_ns is not None for one in record.rounds),
        predictions=len(everything),
        throughput=at_a_time * 1e9 / float(calls.mean()),
        drift=drift,
        disagreement=disagreement,
        warnings=(*_of_samples(rounds, drift, disagreement), *_of_states(record), *record.notes),
    )


def median_ms(record: LatencyRecord) -> float:
    """Of a measured record, over its rounds: what tables call its latency."""
    return summarize(record).median_ns.value / 1e6


def durations(one: Round | Wake) -> Durations:
    """The samples: the model's where the runtime tells them, else the calls'."""
    return np.array(one.call_ns if one.model_ns is None else one.model_ns, np.int64)


def wake_ns(record: LatencyRecord, idle_s: float) -> float | None:
    """The median of first predictions after so many seconds of idling, as `durations`; None where not measured."""
    return next((float(np.median(durations(one))) for one in record.wake if one.idle_s == idle_s), None)


def energy_mj(windows: Sequence[EnergyWindow]) -> dict[str, Interval]:
    """mJ that a prediction takes beyond idling, by component and as `TOTAL`; a component that all windows tell.

    The mean over windows with Student's interval: each window, with the idling before it, is one repetition. Empty
    with fewer than two windows.
    """
    if len(windows) < 2:
        return {}
    told = [n for n in ENERGY_COMPONENTS if all(n in one.idle_mj and n in one.predicting_mj for one in windows)]
    by_component = {name: np.array([_beyond_idling(window, name) for window in windows]) for name in told}
    if by_component:
        by_component[TOTAL] = np.sum(list(by_component.values()), axis=0)
    return {name: _mean_with_interval(values) for name, values in by_component.items()}


def _beyond_idling(window: EnergyWindow, component: str) -> float:
    idle_mw = window.idle_mj[component] / window.idle_s
    return (window.predicting_mj[component] - idle_mw * window.predicting_s) / window.predictions


def median_interval(rounds: Sequence[Durations]) -> tuple[float, float]:
    """The bootstrap interval of the median over round medians: rounds are drawn, then calls within each.

    A two-level percentile bootstrap (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, 3.8). The
    median of n calls drawn again from n is one of their order statistics, whose place is Beta((n+1)/2, (n+1)/2)
    distributed; drawing that place is as good as drawing n calls, and quick.
    """
    draw = np.random.default_rng(_SEED)
    chosen = draw.integers(0, len(rounds), (_RESAMPLES, len(rounds)))
    medians = np.empty(chosen.shape)
    for number, samples in enumerate(rounds):
        here = chosen == number
        n = len(samples)
        place = draw.beta((n + 1) / 2, (n + 1) / 2, int(here.sum()))
        medians[here] = np.sort(samples)[np.minimum((place * n).astype(int), n - 1)]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.median(medians, axis=1), [tail, 100 - tail])
    return float(low), float(high)


def drift_of(medians: NDArray[np.float64]) -> float:
    """From the first round to the last, as a fraction of the median: Theil and Sen's median of slopes (1950, 1968)."""
    if len(medians) < 2:
        return 0.0
    first, second = np.triu_indices(len(medians), 1)
    slope = np.median((medians[second] - medians[first]) / (second - first))
    return float(slope * (len(medians) - 1) / np.median(medians))


def two_speeds(rounds: Sequence[Durations]) -> tuple[float, float] | None:
    """The two typical durations, if the calls within rounds come in two kinds.

    Each call is taken relative to its round's median, so that a drift between rounds is no second kind. The cut is
    Otsu's (1979); the kinds are two if Ashman's D (Ashman, Bird and Zepf 1994) is above 5, each has a tenth of the
    calls and the slower is at least 5 % slower. Halves of a normal distribution have D = 2.7, of an even one 3.5.
    """
    scale = float(np.median([np.median(one) for one in rounds]))
    relative = np.sort(np.concatenate([one / np.median(one) for one in rounds]))
    if len(relative) < _FEWEST_FOR_SPEEDS:
        return None
    cut = _otsu(relative)
    fast, slow = relative[:cut], relative[cut:]
    if min(len(fast), len(slow)) < _SMALLER_SHARE * len(relative):
        return None
    # Medians and median deviations: an outlier of 50 times the median would hide everything else.
    centres = float(np.median(fast)), float(np.median(slow))
    spread = math.hypot(_deviation(fast), _deviation(slow))
    if centres[1] < (1 + _APART) * centres[0]:
        return None
    if math.sqrt(2) * (centres[1] - centres[0]) < _ASHMAN_D * spread:
        return None
    return scale * centres[0], scale * centres[1]


def speed_up(dense: LatencyRecord, sparse: LatencyRecord) -> Interval | None:
    """How many times faster the sparse package is: the geometric mean over rounds of the ratio of round medians.

    Rounds are paired, because both packages were visited in each: what slows down a round cancels. The interval is
    Student's of the logarithms, with rounds as the sample; None with fewer than two common rounds, and where the two
    were not measured by one run: what has changed on the machine since would count as the package's.
    """
    if not of_one_run(dense, sparse):
        return None
    pairs = [
        (np.median(durations(a)), np.median(durations(b))) for a, b in zip(dense.rounds, sparse.rounds, strict=False)
    ]
    if len(pairs) < 2:
        return None
    logs = _mean_with_interval(np.log([a / b for a, b in pairs]))
    return Interval(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high))


def of_one_run(one: LatencyRecord, other: LatencyRecord) -> bool:
    """Whether one session measured both, taking turns: all its records have the moment at which it began."""
    sessions = {(record.provenance.host, record.provenance.created) for record in (one, other)}
    return len(sessions) == 1


def _mean_with_interval(values: NDArray[np.float64]) -> Interval:
    """Student's, of two values or more."""
    mean, count = float(values.mean()), len(values)
    margin = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / math.sqrt(count))
    return Interval(mean, mean - margin, mean + margin)


def _with_interval(median: float, rounds: Sequence[Durations]) -> Interval:
    return Interval(median, *median_interval(rounds))


def _otsu(ordered: NDArray[np.float64]) -> int:
    """How many of the ordered values are below the cut that parts them into the two tightest groups."""
    n = len(ordered)
    # The slowest twentieth is left out of the search: it may be anything, and a cut just below it says nothing.
    values = ordered[: max(2, n - n // 20)]
    below = np.arange(1, len(values))
    sums = np.cumsum(values)
    means = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(values) - below)
    between = below * (len(values) - below) * (means[1] - means[0]) ** 2
    return int(np.argmax(between)) + 1


def _deviation(values: NDArray[np.float64]) -> float:
    """The standard deviation as the median deviation has it (1.4826: of a normal distribution)."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _of_samples(rounds: Sequence[Durations], drift: float, disagreement: float) -> list[str]:
    warnings = []
    if abs(drift) > DISAGREEMENT:
        warnings.append(f"drifted by {100 * drift:+.0f} % from the first round to the last")
    elif disagreement > DISAGREEMENT:
        warnings.append(f"rounds disagree: their medians span {100 * disagreement:.0f} %")
    if (speeds := two_speeds(rounds)) is not None:
        warnings.append(f"calls come at two speeds, about {speeds[0] / 1e6:.3g} and {speeds[1] / 1e6:.3g} ms")
    return warnings


def _of_states(record: LatencyRecord) -> list[str]:
    """What slowed the device down, or may have, while it was measured."""
    states = [state for one in record.rounds for state in (one.before, one.after)]
    warnings = []
    hot = list(dict.fromkeys(state.thermal for state in states if state.thermal not in (None, "nominal")))
    if hot:
        warnings.append(f"thermal state was {' and '.join(map(str, hot))}")
    if any(state.low_power for state in states):
        warnings.append("low-power mode was on")
    if any(state.on_battery for state in states):
        warnings.append("ran on battery")
    load = float(np.median([state.load_average or 0.0 for state in states]))
    if load > record.provenance.cpu_count + record.protocol.concurrency:
        warnings.append(
            f"other programs were running: load average {load:.1f} on {record.provenance.cpu_count} processors"
        )
    if all(state == State() for state in states):
        warnings.append("thermal state and power are unknown on this device")
    return warnings
