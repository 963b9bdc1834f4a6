"""What samples say, against values worked out by hand, by scipy and by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from coreml_prune_bench.latency.statistics import (
    drift_of,
    median_interval,
    speed_up,
    summarize,
    two_speeds,
)
from coreml_prune_bench.records.latency import State
from coreml_prune_bench.records.provenance import provenance
from tests.latency.records import one_round, record
from tests.latency.sessions import COOL


def test_a_summary_by_hand() -> None:
    found = summarize(record([1, 2, 3], [2, 3, 4], [3, 4, 5]))
    assert found.median_ns.value == 3e6  # of the round medians 2, 3 and 4
    assert found.min_ns == 1e6
    assert found.call_median_ns == pytest.approx(3.1e6)
    assert found.throughput == pytest.approx(1000 / 3.1)  # the mean call takes 3.1 ms
    assert found.drift == pytest.approx(2 / 3)  # a line from 2 to 4
    assert found.disagreement == pytest.approx(2 / 3)
    assert found.predictions == 9
    assert (found.p90_ns, found.p99_ns) == (None, None)  # too few predictions to tell
    assert found.model_time


def test_percentiles_are_of_all_samples() -> None:
    samples = list(range(1, 101))
    found = summarize(record(samples[:50], samples[50:]))
    assert found.p90_ns == pytest.approx(1e6 * np.percentile(samples, 90))
    assert found.p99_ns == pytest.approx(1e6 * np.percentile(samples, 99))


def test_calls_where_the_runtime_tells_nothing() -> None:
    rounds = tuple(one_round([1, 2, 3], told=False) for _ in range(2))
    found = summarize(record(rounds=rounds))
    assert not found.model_time
    assert found.median_ns.value == found.call_median_ns == 2.1e6


def test_throughput_of_batches_and_of_several_at_a_time() -> None:
    plain = record([1.9, 1.9])
    protocol = plain.protocol.model_copy(update={"batch_size": 8, "concurrency": 3})
    assert summarize(plain.model_copy(update={"protocol": protocol})).throughput == pytest.approx(8 * 3 / 2e-3)


def test_the_interval_of_a_median_covers_it() -> None:
    """95 % of intervals hold the true median where rounds and calls vary; far fewer would if calls were independent."""
    draw = np.random.default_rng(0)
    hits = naive = 0
    for _ in range(300):
        rounds = [
            np.round(1e6 * (1 + 0.02 * draw.standard_normal()) * (1 + 0.02 * draw.standard_normal(100))).astype(int)
            for _ in range(8)
        ]
        low, high = median_interval(rounds)
        hits += low <= 1e6 <= high
        everything = np.sort(np.concatenate(rounds))
        places = stats.binom(len(everything), 0.5).ppf([0.025, 0.975]).astype(int)
        naive += everything[places[0]] <= 1e6 <= everything[places[1]]
    assert 0.90 <= hits / 300 <= 1
    assert naive / 300 < 0.5


def test_the_median_of_a_bootstrap_sample_is_an_order_statistic() -> None:
    """Drawing its place, as `median_interval` does, is drawing the sample."""
    samples = np.arange(1, 202)
    draw = np.random.default_rng(1)
    drawn = np.median(draw.choice(samples, (4000, 201)), axis=1)
    low, high = median_interval([samples])
    assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=3)


def test_drift_is_theil_and_sens() -> None:
    medians = np.array([10.0, 10.5, 10.2, 11.0, 30.0, 11.5])
    slope = stats.theilslopes(medians).slope
    assert drift_of(medians) == pytest.approx(5 * slope / np.median(medians))
    assert drift_of(np.array([3.0])) == 0.0


def test_speed_up_pairs_rounds() -> None:
    """A machine that doubles its times from round to round: the ratio of 1.5 is there in each."""
    dense = record(*([1.5 * 2**r] * 3 for r in range(5)), algorithm="dense")
    sparse = record(*([1.0 * 2**r] * 3 for r in range(5)), algorithm="sparse-gpt")
    found = speed_up(dense, sparse)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))
    assert speed_up(record([1, 2]), record([1, 2])) is None  # one round has no spread
    # Measured by another run, on another day: what the machine does otherwise by then is not the package's.
    assert speed_up(dense, sparse.model_copy(update={"provenance": provenance()})) is None


def test_the_interval_of_a_speed_up_is_students() -> None:
    ratios = [1.4, 1.5, 1.6, 1.45]
    found = speed_up(record(*([ratio] for ratio in ratios)), record(*([1.0] for _ in ratios)))
    logs = np.log(ratios)
    expected = stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs))
    assert found is not None
    assert found.value == pytest.approx(stats.gmean(ratios))
    assert (found.low, found.high) == pytest.approx(tuple(map(math.exp, expected)))


# --- two speeds

ONE_SPEED = {
    "normal": lambda draw, n: 6 * (1 + 0.02 * draw.standard_normal(n)),
    "wide": lambda draw, n: draw.uniform(3, 9, n),
    "skewed": lambda draw, n: 6 * np.exp(0.5 * draw.standard_normal(n)),
    "exponential": lambda draw, n: 5 + draw.exponential(1, n),
    "outliers": lambda draw, n: 6 * np.where(draw.random(n) < 0.04, 20, 1) * (1 + 0.005 * draw.standard_normal(n)),
    "ticks of a coarse timer": lambda draw, n: np.round(6000 * (1 + 0.002 * draw.standard_normal(n)) / 41.67) * 0.04167,
}
TWO_SPEEDS = {
    "70 and 30 %": lambda draw, n: 6 * np.where(draw.random(n) < 0.3, 1.3, 1) * (1 + 0.01 * draw.standard_normal(n)),
    "85 and 15 %": lambda draw, n: 6 * np.where(draw.random(n) < 0.15, 1.1, 1) * (1 + 0.01 * draw.standard_normal(n)),
    "with outliers": lambda draw, n: (
        6
        * np.where(draw.random(n) < 0.3, 1.3, 1)
        * np.where(draw.random(n) < 0.02, 20, 1)
        * (1 + 0.01 * draw.standard_normal(n))
    ),
}


@pytest.mark.parametrize("name", [*ONE_SPEED, *TWO_SPEEDS])
def test_two_speeds(name: str) -> None:
    draw = np.random.default_rng(2)
    sample = (ONE_SPEED | TWO_SPEEDS)[name]
    found = [
        two_speeds([np.round(1e6 * sample(draw, 200)).astype(int) for _ in range(6)]) is not None for _ in range(100)
    ]
    assert np.mean(found) <= 0.01 if name in ONE_SPEED else np.mean(found) >= 0.99


def test_rounds_at_two_levels_are_no_two_speeds_of_calls() -> None:
    draw = np.random.default_rng(3)
    levels = [1.0, 1.5, 1.0, 1.5, 1.0, 1.5]
    rounds = [np.round(1e6 * level * (1 + 0.01 * draw.standard_normal(200))).astype(int) for level in levels]
    assert two_speeds(rounds) is None
    assert summarize(record(*(one / 1e6 for one in rounds))).warnings == ("rounds disagree: their medians span 40 %",)


# --- warnings


def warnings(*states: State) -> tuple[str, ...]:
    rounds = tuple(one_round([1, 1, 1], before=state, after=state) for state in states)
    return summarize(record(rounds=rounds)).warnings


def test_what_slowed_it_down_is_said() -> None:
    assert warnings(COOL, COOL) == ()
    assert warnings(COOL, COOL.model_copy(update={"thermal": "fair"})) == ("thermal state was fair",)
    assert warnings(COOL, COOL.model_copy(update={"low_power": True})) == ("low-power mode was on",)
    assert warnings(COOL.model_copy(update={"on_battery": True}), COOL) == ("ran on battery",)
    assert warnings(COOL.model_copy(update={"load_average": 1000.0})) == (
        f"other programs were running: load average 1000.0 on {record([1]).provenance.cpu_count} processors",
    )
    assert warnings(State(), State()) == ("thermal state and power are unknown on this device",)
    assert summarize(record([1], [1], notes=("as noted",))).warnings == ("as noted",)
