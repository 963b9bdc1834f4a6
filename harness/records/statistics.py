"""What two sets of data say of one effect: predictions paired by image, and latencies by round.

One convention throughout: an effect is candidate against baseline, each side of it is tested on its own at `alpha`, and
the interval that belongs to two such tests covers 1 - 2 alpha, as in Schuirmann's two one-sided tests
(J. Pharmacokinet. Biopharm. 15:657, 1987). It knows nothing of records, rules or verdicts.

Tails come from scipy.special: importing scipy.stats or statsmodels takes longer than a whole gate. Tests hold every
statistic to theirs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import special

Bits = NDArray[np.bool_]
Floats = NDArray[np.float64]

POWER = 0.8
"""With which the smallest effect that data could have seen would have been seen."""

_RESAMPLES = 4_000
_EXACT_UP_TO = 100
"""Rounds, of both sides together, up to which the distribution of ranks is counted out."""


@dataclass(frozen=True)
class Finding:
    """An effect, and the evidence for each thing that can be said of it.

    effect, low, high: estimate and interval at confidence 1 - 2 alpha.
    p_below, p_above: small where it is shown to lie below minus the allowed loss, or above its opposite.
    p_within: small where it is shown to lie inside the margin that counts as no difference.
    detectable: the smallest effect that these data would have shown with a power of 80 %; None where none would have.
    method: in words.
    """

    effect: float
    low: float
    high: float
    p_below: float
    p_above: float
    p_within: float
    detectable: float | None
    method: str


# --- accuracy


def compare_predictions(
    baseline: Bits, candidate: Bits, *, allowed: float, margin: float, alpha: float, tests: int = 1
) -> Finding:
    """The difference of two accuracies on the same images; bool [trials, images], true where the label was predicted.

    allowed, margin and the effect are fractions. tests: how many the gate makes, for what could have been seen.
    One trial a side is judged by its images. Several are judged by their spread too: see `_over_trials`.
    """
    if len(baseline) == len(candidate) and (baseline == candidate).all():  # trial by trial: one as good as all
        baseline, candidate = baseline[:1], candidate[:1]
    if len(baseline) == len(candidate) == 1:
        lost = int((baseline[0] & ~candidate[0]).sum())
        gained = int((candidate[0] & ~baseline[0]).sum())
        return _over_images(lost, gained, baseline.shape[1], allowed, margin, alpha, tests)
    return _over_trials(baseline, candidate, allowed, margin, alpha, tests)


def mcnemar(lost: int, gained: int) -> float:
    """Exact one-sided McNemar: how likely so many of the images that changed are losses where either is as likely.

    McNemar, Psychometrika 12:153, 1947; the exact form is the sign test. Doubled, it is the usual two-sided p-value.
    """
    return float(special.bdtrc(lost - 1, lost + gained, 0.5)) if lost else 1.0


def score(lost: int, gained: int, images: int, difference: float) -> float:
    """Tango's score statistic of a paired difference of proportions: about standard normal if `difference` is true.

    Tango, Statistics in Medicine 17:891, 1998. At a difference of 0 it is the square root of McNemar's chi-square.
    """
    a = 2 * images
    b = -gained - lost + (2 * images - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    lost_share = (math.sqrt(max(b * b - 4 * a * c, 0)) - b) / (2 * a)  # most likely under `difference`
    variance = images * (2 * lost_share + difference * (1 - difference))
    distance = gained - lost - images * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


@lru_cache(maxsize=4096)  # most rows of a history did not change
def score_interval(lost: int, gained: int, images: int, alpha: float) -> tuple[float, float]:
    """Tango's interval of a paired difference at confidence 1 - 2 alpha: what `score` does not reject."""
    z = _normal_quantile(1 - alpha)
    estimate = (gained - lost) / images

    def rejected(difference: float) -> bool:
        return abs(score(lost, gained, images, difference)) > z

    return _last(lambda x: not rejected(x), estimate, -1.0), _last(lambda x: not rejected(x), estimate, 1.0)


@lru_cache(maxsize=4096)
def detectable_difference(discordant: float, images: int, allowed: float, alpha: float) -> float | None:
    """The smallest loss that is shown to be beyond `allowed` with a power of 80 %; None where none is large enough.

    Connor, Biometrics 43:207, 1987. discordant: share of images that one side alone predicts; at least the loss itself.
    """
    z_alpha, z_power = _normal_quantile(1 - alpha), _normal_quantile(POWER)

    def is_seen(loss: float) -> bool:
        share = max(discordant, loss)
        needed = z_alpha * math.sqrt(max(share - allowed**2, 0)) + z_power * math.sqrt(max(share - loss**2, 0))
        return (loss - allowed) * math.sqrt(images) > needed

    return _last(is_seen, 1.0, allowed) if is_seen(1.0) else None


def _over_images(
    lost: int, gained: int, images: int, allowed: float, margin: float, alpha: float, tests: int
) -> Finding:
    """Exact McNemar where nothing is allowed; the score test where the question is of more than an allowed loss."""
    low, high = score_interval(lost, gained, images, alpha)

    def beyond(lost: int, gained: int) -> float:
        return _normal_tail(score(gained, lost, images, allowed)) if allowed else mcnemar(lost, gained)

    return Finding(
        effect=(gained - lost) / images,
        low=low,
        high=high,
        p_below=beyond(lost, gained),
        p_above=beyond(gained, lost),
        p_within=max(
            _normal_tail(score(lost, gained, images, -margin)), _normal_tail(score(gained, lost, images, -margin))
        ),
        detectable=detectable_difference((lost + gained) / images, images, allowed, alpha / tests),
        method="exact McNemar" if not allowed else "paired score test",
    )


def _over_trials(baseline: Bits, candidate: Bits, allowed: float, margin: float, alpha: float, tests: int) -> Finding:
    """Trials and images are both samples: the variances that each gives the difference of mean accuracies are added.

    Images: the variance over images of the difference of mean correctness, over their number (with one trial a side,
    McNemar's). Trials: Welch's, from the spread of each side's accuracies. Both hold the part of the noise that is
    particular to a trial and an image, so the sum errs on the safe side (Cameron, Gelbach and Miller, J. Bus. Econ.
    Stat. 29:238, 2011, subtract it once). A side with a single trial is taken to spread as the other side does.
    """
    images = baseline.shape[1]
    method = f"t test over images and trials ({len(baseline)} and {len(candidate)})"
    by_image = candidate.mean(axis=0) - baseline.mean(axis=0)  # [images]
    if images < 2:  # how images spread is not known: nothing can be told
        return Finding(float(by_image.mean()), -1.0, 1.0, 1.0, 1.0, 1.0, None, method)
    terms = [(float(by_image.var(ddof=1)) / images, images - 1)]
    spreads = [(len(side), float(side.mean(axis=1).var(ddof=1))) for side in (baseline, candidate) if len(side) > 1]
    if len(spreads) == 2:
        terms += [(variance / trials, trials - 1) for trials, variance in spreads]
    else:
        ((trials, variance),) = spreads
        terms.append((variance * (1 / trials + 1), trials - 1))
    error, freedom = _welch(terms)
    effect = float(by_image.mean())

    def tail(value: float, bound: float) -> float:
        """How likely a value as far above `bound` is if `bound` is true."""
        if not error:
            return float(value <= bound)
        return float(special.stdtr(freedom, (bound - value) / error))

    reach = float(special.stdtrit(freedom, 1 - alpha)) * error
    seen = allowed + float(special.stdtrit(freedom, 1 - alpha / tests) + special.stdtrit(freedom, POWER)) * error
    return Finding(
        effect=effect,
        low=max(effect - reach, -1.0),
        high=min(effect + reach, 1.0),
        p_below=tail(-effect, allowed),
        p_above=tail(effect, allowed),
        p_within=max(tail(effect, -margin), tail(-effect, -margin)),
        detectable=seen if seen <= 1 else None,
        method=method,
    )


def accuracy_against(correct: Bits, bound: float, *, alpha: float) -> Finding:
    """A mean accuracy, bool [trials, images], against a fixed one; effect, low and high are accuracies themselves.

    One trial: the exact binomial test, and Clopper and Pearson's interval (Biometrika 26:404, 1934), which reject
    alike. Several: a t test over images and trials, as `_over_trials`. p_within is 1: nothing is asked of equality.
    """
    trials, images = correct.shape
    if trials == 1 or (correct == correct[0]).all():
        hits = int(correct[0].sum())
        low = float(special.betaincinv(hits, images - hits + 1, alpha)) if hits else 0.0
        high = float(special.betaincinv(hits + 1, images - hits, 1 - alpha)) if hits < images else 1.0
        below = float(special.bdtr(hits, images, bound))
        above = float(special.bdtrc(hits - 1, images, bound)) if hits else 1.0
        return Finding(hits / images, low, high, below, above, 1.0, None, "exact binomial test")
    told = f"t test over images and trials ({trials})"
    by_image, by_trial = correct.mean(axis=0), correct.mean(axis=1)
    if images < 2:  # how images spread is not known: nothing can be told
        return Finding(float(correct.mean()), 0.0, 1.0, 1.0, 1.0, 1.0, None, told)
    terms = [(float(by_image.var(ddof=1)) / images, images - 1), (float(by_trial.var(ddof=1)) / trials, trials - 1)]
    error, freedom = _welch(terms)
    effect = float(correct.mean())
    reach = float(special.stdtrit(freedom, 1 - alpha)) * error
    far = (effect - bound) / error if error else math.copysign(math.inf, effect - bound)
    below, above = float(special.stdtr(freedom, far)), float(special.stdtr(freedom, -far))
    return Finding(effect, max(effect - reach, 0.0), min(effect + reach, 1.0), below, above, 1.0, None, told)


# --- latency


def compare_latencies(
    baseline: Floats, candidate: Floats, *, allowed: float, margin: float, alpha: float, tests: int = 1
) -> Finding:
    """The ratio of two median latencies, less one, from the medians of rounds [rounds], in any one unit of time.

    allowed and margin are fractions of the baseline: the bounds tested are 1 + allowed and its reciprocal. Samples of a
    round are correlated, so a round counts once: the test is Mann and Whitney's on the medians of rounds, scaled to the
    bound, the interval a bootstrap over rounds.
    """
    low, high = ratio_interval(baseline, candidate, alpha)

    def is_above(ratio: float) -> float:
        return mann_whitney(baseline, candidate / ratio)

    def is_below(ratio: float) -> float:
        return mann_whitney(candidate / ratio, baseline)

    return Finding(
        effect=float(np.median(candidate) / np.median(baseline)) - 1,
        low=low - 1,
        high=high - 1,
        p_below=is_below(1 / (1 + allowed)),
        p_above=is_above(1 + allowed),
        p_within=max(is_below(1 + margin), is_above(1 / (1 + margin))),
        detectable=detectable_slowdown(baseline, candidate, allowed, alpha / tests),
        method=f"Mann-Whitney over rounds ({len(baseline)} and {len(candidate)})",
    )


def median_against(rounds: Floats, bound: float, *, alpha: float) -> Finding:
    """The median of rounds [rounds] against a fixed value; effect, low and high are in its unit.

    The sign test, which asks nothing of how rounds are spread; values equal to the bound count for neither side. The
    interval is of order statistics, infinite where there are too few rounds for one.
    """
    higher, lower = int((rounds > bound).sum()), int((rounds < bound).sum())
    ordered, count = np.sort(rounds), len(rounds)
    reach = [rank for rank in range(count) if special.bdtr(rank, count, 0.5) <= alpha]
    low, high = (ordered[reach[-1]], ordered[-1 - reach[-1]]) if reach else (-math.inf, math.inf)
    return Finding(
        effect=float(np.median(rounds)),
        low=float(low),
        high=float(high),
        p_below=float(special.bdtr(higher, higher + lower, 0.5)),
        p_above=float(special.bdtr(lower, higher + lower, 0.5)),
        p_within=1.0,
        detectable=None,
        method=f"sign test over rounds ({count})",
    )


def mann_whitney(smaller: Floats, larger: Floats) -> float:
    """Exact one-sided Mann-Whitney: how likely `larger` has ranks as high if both are from one distribution.

    Mann and Whitney, Ann. Math. Stat. 18:50, 1947. Ties take their middle rank, and the distribution is that of the
    ranks which were found (Streitberg and Röhmel, Stat. Softw. Newsl. 12:10, 1986). Beyond 100 values: the normal
    approximation, corrected for ties and continuity.
    """
    ranks = _doubled_ranks(np.concatenate([smaller, larger]))
    total = int(ranks[len(smaller) :].sum())
    if len(ranks) <= _EXACT_UP_TO:
        ways = _ways(tuple(sorted(ranks.tolist())), len(larger))
        return float(ways[total:].sum() / ways.sum())
    size, rest = len(larger), len(smaller)
    mean = size * float(ranks.mean())
    deviation = math.sqrt(size * rest / (size + rest) * float(ranks.var(ddof=1)))
    return _normal_tail((total - mean - 1) / deviation) if deviation else 1.0  # 1 is half a step of a doubled rank


def smallest_p(baseline_rounds: int, candidate_rounds: int) -> float:
    """What Mann-Whitney gives if every round of one side is slower than all of the other: it can go no lower."""
    return 1 / math.comb(baseline_rounds + candidate_rounds, baseline_rounds)


def ratio_interval(baseline: Floats, candidate: Floats, alpha: float) -> tuple[float, float]:
    """The ratio of medians at confidence 1 - 2 alpha: percentiles of a bootstrap over rounds, the same at every call.

    Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13, 1993. With few rounds it is too narrow, which is
    why verdicts rest on the test.
    """
    draw = np.random.default_rng(0)
    above, below = (
        np.median(side[draw.integers(len(side), size=(_RESAMPLES, len(side)))], axis=1)  # [resamples]
        for side in (candidate, baseline)
    )
    low, high = np.quantile(above / below, [alpha, 1 - alpha])
    return float(low), float(high)


def detectable_slowdown(baseline: Floats, candidate: Floats, allowed: float, alpha: float) -> float | None:
    """The smallest slow-down that Mann-Whitney shows with a power of 80 % on rounds that vary as these do.

    None where there are too few rounds for any. As of Welch's t test on logarithms with 1 / 0.864 times its variance:
    whatever the distribution, Mann-Whitney needs about as many rounds as that at most (Hodges and Lehmann, Ann. Math.
    Stat. 27:324, 1956).
    """
    rounds = len(baseline), len(candidate)
    if smallest_p(*rounds) > alpha or min(rounds) < 2:
        return None
    terms = [(float(np.log(side).var(ddof=1)) / len(side), len(side) - 1) for side in (baseline, candidate)]
    error, freedom = _welch(terms)
    steps = float(special.stdtrit(freedom, 1 - alpha) + special.stdtrit(freedom, POWER))
    return (1 + allowed) * math.exp(steps * error / math.sqrt(0.864)) - 1


def _doubled_ranks(values: Floats) -> NDArray[np.int64]:
    """Twice the middle rank of each value among all of them, from 2: whole numbers whatever ties."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (2 * np.cumsum(counts) - counts + 1)[place]


@lru_cache(maxsize=64)
def _ways(doubled_ranks: tuple[int, ...], size: int) -> Floats:
    """How many choices of `size` of the ranks have each sum."""
    ways = np.zeros((size + 1, sum(doubled_ranks) + 1))  # [chosen, sum]
    ways[0, 0] = 1
    for rank in doubled_ranks:
        ways[1:, rank:] += ways[:-1, :-rank].copy()
    return ways[size]


# --- several rows


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values such that rejecting those of at most alpha errs anywhere among them with a chance of at most alpha.

    Holm, Scand. J. Stat. 6:65, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(highest, 1.0)
    return adjusted


def _welch(terms: list[tuple[float, int]]) -> tuple[float, float]:
    """The standard error and degrees of freedom of a sum of independent terms, of each its variance and its degrees.

    Satterthwaite, Biometrics Bulletin 2:110, 1946.
    """
    total = sum(variance for variance, _ in terms)
    if not total:
        return 0.0, float(sum(degrees for _, degrees in terms))
    return math.sqrt(total), total**2 / sum(variance**2 / degrees for variance, degrees in terms)


def _normal_quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def _normal_tail(z: float) -> float:
    return float(special.ndtr(-z))


def _last(holds: Callable[[float], bool], inside: float, outside: float) -> float:
    """By bisection: how far from `inside`, where something holds, towards `outside` it still does."""
    if holds(outside):
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside
