"""Statistics: against scipy.stats, statsmodels, published values, enumeration and simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from coreml_prune_bench.records.statistics import (
    POWER,
    compare_latencies,
    compare_predictions,
    detectable_difference,
    detectable_slowdown,
    holm,
    mann_whitney,
    mcnemar,
    ratio_interval,
    score,
    score_interval,
    smallest_p,
)


def predictions(lost: int, gained: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """One trial a side, bool [1, images] each, of which so many images are lost and gained."""
    baseline, candidate = np.zeros((2, 1, images), bool)
    baseline[0, :lost] = True
    candidate[0, lost : lost + gained] = True
    return baseline, candidate


# --- accuracy, one trial a side


@pytest.mark.parametrize(("lost", "gained"), [(6, 0), (0, 6), (10, 3), (35, 16), (1, 1), (4000, 3800)])
def test_exact_mcnemar_is_scipys_binomial_test(lost, gained):
    expected = stats.binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("lost", "gained"), [(6, 0), (3, 10), (35, 16), (7, 7), (4000, 3800)])
def test_twice_the_smaller_side_of_mcnemar_is_statsmodels_two_sided_test(lost, gained):
    expected = statsmodels_mcnemar([[100, lost], [gained, 50]], exact=True).pvalue
    assert min(1.0, 2 * min(mcnemar(lost, gained), mcnemar(gained, lost))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("lost", "gained", "images"), [(7, 1, 21), (35, 16, 700)])
def test_the_score_of_no_difference_is_the_statistic_of_statsmodels_mcnemar(lost, gained, images):
    table = [[images - lost - gained, lost], [gained, 0]]
    expected = statsmodels_mcnemar(table, exact=False, correction=False)
    assert score(lost, gained, images, 0.0) ** 2 == pytest.approx(expected.statistic)


def test_exact_mcnemar_worked_out_by_hand():
    assert mcnemar(5, 0) == 1 / 32
    assert mcnemar(4, 1) == 6 / 32  # (5 choose 4) + (5 choose 5) of 2 ** 5
    assert mcnemar(0, 0) == 1


@pytest.mark.parametrize(
    ("lost", "gained", "images", "alpha", "expected"),
    [
        # Fagerland, Lydersen and Laake, Stat. Med. 33:2850, 2014: airway hyper-responsiveness, 1 and 7 of 21
        (7, 1, 21, 0.025, (-0.517, -0.026)),
        # R's PropCIs::scoreci.mp(25, 28, 618, 0.90), which estimates the second less the first
        (25, 28, 618, 0.05, (-0.0148, 0.0247)),
    ],
)
def test_tangos_interval_is_the_published_one(lost, gained, images, alpha, expected):
    digits = 3 if images == 21 else 4
    assert tuple(round(end, digits) for end in score_interval(lost, gained, images, alpha)) == expected


@pytest.mark.parametrize("difference", [-0.3, -0.02, 0.0, 0.07])
@pytest.mark.parametrize(("lost", "gained", "images"), [(7, 1, 21), (0, 0, 30), (35, 16, 700), (3, 0, 50)])
def test_the_score_is_that_of_the_likelihood_maximized_by_scipy(lost, gained, images, difference):
    def minus_log_likelihood(lost_share: float) -> float:
        shares = (lost_share, lost_share + difference, 1 - 2 * lost_share - difference)
        counts = (lost, gained, images - lost - gained)
        return -sum(count * math.log(max(share, 1e-300)) for count, share in zip(counts, shares, strict=True) if count)

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    best = optimize.minimize_scalar(minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = (2 * best + difference - difference**2) / images
    distance = (gained - lost) / images - difference
    expected = distance / math.sqrt(variance) if variance > 1e-9 else 0.0
    assert score(lost, gained, images, difference) == pytest.approx(expected, abs=2e-3)


def test_the_score_of_no_difference_is_mcnemars_chi_square():
    assert score(35, 16, 700, 0.0) ** 2 == pytest.approx((35 - 16) ** 2 / (35 + 16))


def test_one_trial_a_side_gives_difference_interval_and_p():
    found = compare_predictions(*predictions(35, 16, 700), allowed=0, margin=0.01, alpha=0.05)
    assert found.effect == pytest.approx(-19 / 700)
    assert (found.low, found.high) == score_interval(35, 16, 700, 0.05)
    assert found.low < found.effect < found.high < 0
    assert (found.p_below, found.p_above) == (mcnemar(35, 16), mcnemar(16, 35))
    assert found.p_within > 0.9
    assert found.method == "exact McNemar"


def test_an_allowed_loss_moves_the_question():
    sides = predictions(100, 10, 1000)  # 9 points lost
    p_below = {allowed: compare_predictions(*sides, allowed=allowed, margin=1, alpha=0.05).p_below for allowed in
               (0.0, 0.05, 0.09, 0.12)}  # fmt: skip
    assert p_below[0.0] < 1e-15
    assert p_below[0.05] < 0.001
    assert p_below[0.09] == pytest.approx(0.5, abs=1e-6)
    assert p_below[0.12] > 0.99
    assert list(p_below.values()) == sorted(p_below.values())


def test_identical_predictions_are_shown_to_be_within_a_margin_by_enough_images():
    def p_within(images: int) -> float:
        return compare_predictions(*predictions(0, 0, images), allowed=0, margin=0.01, alpha=0.05).p_within

    # Tango's interval of no change is z ** 2 / (n + z ** 2): 1.645 ** 2 / 0.01 less itself are 268 images
    assert p_within(260) > 0.05 > p_within(275)


def test_the_sides_are_treated_alike():
    one = compare_predictions(*predictions(20, 9, 400), allowed=0.01, margin=0.02, alpha=0.05)
    other = compare_predictions(*predictions(9, 20, 400), allowed=0.01, margin=0.02, alpha=0.05)
    assert (one.effect, one.low, one.high) == pytest.approx((-other.effect, -other.high, -other.low))
    assert (one.p_below, one.p_above, one.p_within) == pytest.approx((other.p_above, other.p_below, other.p_within))


@pytest.mark.parametrize(("discordant", "images", "allowed"), [(0.05, 5000, 0), (0.0, 700, 0), (0.2, 700, 0.02)])
def test_the_detectable_loss_is_found_in_80_percent_of_simulations(discordant, images, allowed):
    loss = detectable_difference(discordant, images, allowed, 0.05)
    assert loss
    share = max(discordant, loss)
    draw = np.random.default_rng(1)
    counts = draw.multinomial(images, [(share + loss) / 2, (share - loss) / 2, 1 - share], size=2000)

    def p_below(lost: int, gained: int) -> float:
        return float(stats.norm.sf(score(gained, lost, images, allowed))) if allowed else mcnemar(lost, gained)

    seen = np.mean([p_below(lost, gained) <= 0.05 for lost, gained, _ in counts])
    assert seen == pytest.approx(POWER, abs=0.07)


def test_two_images_can_show_nothing():
    assert detectable_difference(0.5, 2, 0, 0.05) is None


# --- accuracy, several trials


def test_without_noise_of_images_trials_are_compared_by_welch():
    # The images that a trial loses are drawn anew each time, so that no image is harder than another.
    draw = np.random.default_rng(0)
    sides = []
    for accuracies in ((0.70, 0.72, 0.71), (0.66, 0.69, 0.64)):
        sides.append(np.stack([draw.permutation(np.arange(200_000) < accuracy * 200_000) for accuracy in accuracies]))
    found = compare_predictions(*sides, allowed=0, margin=0.1, alpha=0.05)
    welch = stats.ttest_ind(*(side.mean(axis=1) for side in sides), equal_var=False, alternative="greater")
    assert found.p_below == pytest.approx(welch.pvalue, rel=0.05)
    interval = stats.ttest_ind(*(side.mean(axis=1) for side in sides[::-1]), equal_var=False).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=0.03)


def test_without_noise_of_trials_images_are_compared_as_pairs():
    draw = np.random.default_rng(0)
    baseline, candidate = draw.random((2, 1, 800)) < [[[0.8]], [[0.75]]]
    found = compare_predictions(
        baseline.repeat(3, axis=0), candidate.repeat(2, axis=0), allowed=0, margin=0.1, alpha=0.05
    )
    paired = stats.ttest_rel(baseline[0].astype(float), candidate[0].astype(float), alternative="greater")
    assert found.p_below == pytest.approx(paired.pvalue)


def test_a_single_trial_is_taken_to_spread_as_the_other_side_does():
    # 100 images each; baseline trials 60, 70 and 80: variance 0.01, mean 0.7. candidate: one trial of 30
    baseline = np.stack([np.arange(100) < count for count in (60, 70, 80)])
    candidate = (np.arange(100) < 30)[None]
    by_image = candidate.mean(axis=0) - baseline.mean(axis=0)
    variances = by_image.var(ddof=1) / 100, 0.01 * (1 / 3 + 1)
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 99 + variances[1] ** 2 / 2)
    found = compare_predictions(baseline, candidate, allowed=0, margin=0.1, alpha=0.05)
    assert found.p_below == pytest.approx(stats.t.sf(0.4 / math.sqrt(sum(variances)), freedom))


def test_the_spread_of_trials_is_not_mistaken_for_a_loss():
    """Three trials a side of one recipe whose trials differ by two points; images alone would alarm far more often."""
    draw = np.random.default_rng(0)
    alarms = {"trials": 0, "images alone": 0}
    for _ in range(600):
        shares = 0.75 + draw.normal(0, 0.02, 6)
        hardness = draw.random(1000)  # an image is hard for all trials
        trials = (0.9 * hardness + 0.1 * draw.random((6, 1000))) < shares[:, None]
        found = compare_predictions(trials[:3], trials[3:], allowed=0, margin=0.01, alpha=0.05)
        single = compare_predictions(trials[:1], trials[3:4], allowed=0, margin=0.01, alpha=0.05)
        alarms["trials"] += found.p_below <= 0.05
        alarms["images alone"] += single.p_below <= 0.05
    assert alarms["trials"] <= 0.065 * 600
    assert alarms["images alone"] > 0.2 * 600


def test_trials_that_are_all_identical_are_one():
    one = predictions(0, 0, 700)
    three = tuple(side.repeat(3, axis=0) for side in one)
    assert compare_predictions(*three, allowed=0, margin=0.01, alpha=0.05) == compare_predictions(
        *one, allowed=0, margin=0.01, alpha=0.05
    )


# --- latency


@pytest.mark.parametrize(("smaller", "larger"), [(3, 3), (5, 8), (10, 10), (20, 40)])
def test_mann_whitney_is_scipys_exact_test(smaller, larger):
    draw = np.random.default_rng(smaller)
    x, y = draw.normal(0, 1, smaller), draw.normal(0.5, 1, larger)
    assert mann_whitney(x, y) == pytest.approx(stats.mannwhitneyu(y, x, alternative="greater", method="exact").pvalue)


def test_mann_whitney_counts_ties_as_enumeration_does():
    x, y = np.array([1.0, 2, 2, 3]), np.array([2.0, 3, 3, 4, 5])
    ranks = stats.rankdata(np.concatenate([x, y]))
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(y))]
    assert mann_whitney(x, y) == pytest.approx(np.mean(np.array(sums) >= ranks[4:].sum()))


def test_mann_whitney_of_many_values_is_scipys_approximation():
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 30, 90).astype(float), draw.integers(3, 33, 80).astype(float)
    expected = stats.mannwhitneyu(y, x, alternative="greater", method="asymptotic").pvalue
    assert mann_whitney(x, y) == pytest.approx(expected, rel=1e-6)
    assert mann_whitney(np.ones(60), np.ones(60)) == 1


def test_the_smallest_p_worked_out_by_hand():
    x = np.arange(1.0, 6)
    assert smallest_p(5, 5) == 1 / 252  # 10 choose 5
    assert mann_whitney(x, x + 10) == pytest.approx(1 / 252)


def test_the_interval_of_a_ratio_agrees_with_scipys_bootstrap():
    draw = np.random.default_rng(0)
    x, y = draw.lognormal(0, 0.1, 15), draw.lognormal(0.1, 0.1, 12)
    expected = stats.bootstrap(
        (x, y),
        lambda a, b, axis: np.median(b, axis=axis) / np.median(a, axis=axis),
        method="percentile",
        confidence_level=0.9,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ratio_interval(x, y, 0.05) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert ratio_interval(x, y, 0.05) == ratio_interval(x, y, 0.05)


def test_latencies_scaled_by_a_known_ratio():
    rounds = np.linspace(1.00e6, 1.01e6, 10)
    found = compare_latencies(rounds, 1.08 * rounds, allowed=0.05, margin=0.05, alpha=0.05)
    assert found.effect == pytest.approx(0.08)
    assert found.low < 0.08 < found.high
    assert found.p_above == pytest.approx(smallest_p(10, 10))  # every round is slower, 5 % taken off
    assert found.p_below == pytest.approx(1)
    assert found.p_within == pytest.approx(1)
    same = compare_latencies(rounds, 1.001 * rounds, allowed=0.05, margin=0.05, alpha=0.05)
    assert same.p_within == pytest.approx(smallest_p(10, 10))
    assert min(same.p_above, same.p_below) > 0.99


def test_faster_by_more_than_allowed_is_the_mirror_of_slower():
    draw = np.random.default_rng(0)
    x, y = draw.lognormal(0, 0.02, (2, 8))
    slower = compare_latencies(x, 1.1 * y, allowed=0.05, margin=0.05, alpha=0.05)
    faster = compare_latencies(1.1 * y, x, allowed=0.05, margin=0.05, alpha=0.05)
    assert slower.p_above == pytest.approx(faster.p_below)


@pytest.mark.parametrize("noise", ["normal", "bimodal", "heavy tails"])
@pytest.mark.parametrize(("rounds", "allowed"), [(6, 0.0), (10, 0.05), (20, 0.0)])
def test_the_detectable_slowdown_is_found_in_at_least_80_percent_of_simulations(rounds, allowed, noise):
    draw = np.random.default_rng(2)

    def sample(size: int) -> np.ndarray:
        shape = (size, rounds)
        modes = {"bimodal": 0.1 * (draw.random(shape) < 0.4), "heavy tails": 0.01 * draw.standard_t(2, shape)}
        return np.exp(draw.normal(0, 0.02, shape) + modes.get(noise, 0))

    seen = []
    for x, y in zip(sample(500), sample(500), strict=True):
        detectable = detectable_slowdown(x, y, allowed, 0.05)
        seen.append(mann_whitney(x, (1 + detectable) * y / (1 + allowed)) <= 0.05)
    assert np.mean(seen) >= POWER - 0.1


def test_too_few_rounds_can_show_nothing():
    rounds = np.array([1.0, 1.1])
    assert smallest_p(2, 2) == 1 / 6
    assert detectable_slowdown(rounds, rounds, 0, 0.05) is None
    assert detectable_slowdown(np.ones(3), np.ones(3), 0, 0.05) == 0


# --- several rows


@pytest.mark.parametrize("count", [1, 2, 27])
def test_holm_is_statsmodels_correction(count):
    p_values = np.round(np.random.default_rng(count).random(count) ** 3, 2)  # some are equal
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_holm_worked_out_by_hand():
    # 4 * 0.005 = 0.02; 3 * 0.011 = 0.033; 2 * 0.02 = 0.04; 1 * 0.03 is less than what came before
    assert holm([0.03, 0.005, 0.02, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []
