"""Does a network do more than guess? A test of its top-1 against chance, from what it predicts image by image.

Chance is what it would get right if its answers had nothing to do with the images: the same answers, dealt out to them
at random. So a network that always gives the most frequent class only guesses, however frequent that is, and one that
takes classes for one another is worse than chance. Tables ask for it, so it imports NumPy only where that is needed.
"""

import math
from collections import Counter
from collections.abc import Iterable

from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.predictions import Predictions

ALPHA = 0.02
"""How likely a network that guesses passes for one that does not."""

_DRAWS = 2_000
_NUMBERS = 10_000_000
"""Drawn in all at most: fewer permutations of many images, 200 of 50,000."""


def chance_p(predictions: Predictions, classes: int) -> float:
    """How likely as many hits as these are by chance, or an upper bound of that: small where a network sees something.

    A permutation test; where Cantelli's inequality alone says less than ALPHA, nothing is drawn. Images of one class
    alone say nothing of that: there, chance is one of `classes`.
    """
    best = [top[0] for top in predictions.top5]
    images = len(best)
    hits = sum(label == answer for label, answer in zip(predictions.labels, best, strict=True))
    labels, answers = Counter(predictions.labels), Counter(best)
    if len(labels) == 1:
        return _binomial_tail(hits, images, 1 / classes)
    pairs = [(labels[name], count) for name, count in answers.items()]
    expected = sum(r * k for r, k in pairs) / images
    # Hoeffding, Ann. Math. Statist. 22:558, 1951: the variance of a sum over a random permutation.
    of_labels = sum(count**2 * answers[name] for name, count in labels.items())
    of_answers = sum(r * k**2 for r, k in pairs)
    variance = (images * expected - (of_labels + of_answers) / images + expected**2) / (images - 1)
    if hits <= expected or variance <= 0:
        return 1.0
    bound = variance / (variance + (hits - expected) ** 2)
    return bound if bound < ALPHA else _drawn(list(predictions.labels), best, hits)


def chance_levels(records: Iterable[Record]) -> list[str]:
    """A line for each dense network among the records whose top-1 is not shown to be above chance."""
    dense = [record for record in records if record.pruning.algorithm == "dense" and record.predictions]
    told = {record.key: guesses(record.predictions, record.data.classes) for record in dense if record.predictions}
    return [f"{r.network.title} on {r.data.spec}, dense: {line}" for r in dense if (line := told[r.key])]


def guesses(predictions: Predictions, classes: int) -> str | None:
    """A line where predictions are not shown to be above chance, and what that is about; None where they are."""
    p = chance_p(predictions, classes)
    if p < ALPHA:
        return None
    return (
        f"top-1 {100 * predictions.top1:.2f} % of {len(predictions.labels):,} images is not shown to be above chance "
        f"(p = {p:.2g}): are weights, normalization, the order of classes and the images the right ones?"
    )


def _drawn(labels: list[int], best: list[int], hits: int) -> float:
    import numpy as np

    draws = min(_DRAWS, max(200, _NUMBERS // len(best)))
    draw, answers, dealt = np.random.default_rng(0), np.array(best), np.array(labels)
    as_many = sum(int((draw.permutation(dealt) == answers).sum() >= hits) for _ in range(draws))
    return (as_many + 1) / (draws + 1)


def _binomial_tail(hits: int, images: int, share: float) -> float:
    """P(X >= hits), by the terms' logarithms."""
    if share >= 1 or not hits:
        return 1.0
    terms = (
        math.lgamma(images + 1) - math.lgamma(k + 1) - math.lgamma(images - k + 1)
        + k * math.log(share) + (images - k) * math.log1p(-share)
        for k in range(hits, images + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, terms)))
