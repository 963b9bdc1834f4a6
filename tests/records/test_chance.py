"""Guessing told from seeing: small cases counted out, and how often what guesses is taken for what does not."""

import itertools

import numpy as np
import pytest

from coreml_prune_bench.records.chance import ALPHA, chance_levels, chance_p, guesses
from coreml_prune_bench.records.predictions import Predictions
from tests.factories import accuracy_record


def predicted(labels, best) -> Predictions:
    return Predictions(labels=tuple(map(int, labels)), top5=tuple((int(one),) for one in best))


@pytest.mark.parametrize(
    ("labels", "best"),
    [([0, 0, 1, 1, 2], [0, 1, 1, 1, 2]), ([0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 2]), ([0, 1, 2, 2], [2, 1, 2, 0])],
)
def test_p_is_that_of_all_orders_of_the_labels(labels, best):
    hits = sum(a == b for a, b in zip(labels, best, strict=True))
    orders = np.array(list(itertools.permutations(labels)))  # [permutations, images]
    as_many = (orders == np.array(best)).sum(1) >= hits
    assert chance_p(predicted(labels, best), 3) == pytest.approx(as_many.mean(), abs=0.045)  # 4 deviations of 2,000


@pytest.mark.parametrize(
    ("labels", "best", "sees"),
    [
        ([0] * 90 + [1] * 10, [0] * 100, False),  # 90 %, always the frequent class
        ([0] * 90 + [1] * 10, [0] * 76 + [1] * 24, True),  # 86 %, less than always guessing that class, and it sees
        ([0, 1, 2] * 30, [1, 2, 0] * 30, False),  # knows all, calls each by another's name
        ([0, 1, 2] * 30, [0, 1, 2] * 30, True),
        ([7] * 20, [7] * 20, True),  # of 1,000 classes
        ([7] * 20, [3] * 20, False),
        ([0], [0], True),
        ([0, 1], [0, 1], False),  # two images show nothing
    ],
)
def test_what_guesses_is_told_from_what_sees(labels, best, sees):
    told = guesses(predicted(labels, best), 1000)
    assert (told is None) == sees
    if told:
        assert f"of {len(labels)} images is not shown to be above chance" in told


@pytest.mark.parametrize(("images", "classes"), [(30, 3), (400, 1000)])
def test_a_guesser_is_seldom_taken_for_more(draw, images, classes):
    """At 2 %, of 100 guessers 2; 8 are as unlikely as one in a thousand."""
    guessers = [predicted(*draw.integers(0, classes, (2, images))) for _ in range(100)]
    assert sum(chance_p(one, classes) < ALPHA for one in guessers) < 8


def test_only_dense_networks_are_asked(draw):
    at_chance = draw.random(50) < 0
    dense, pruned = (accuracy_record(at_chance, algorithm=name) for name in ("dense", "sparse-gpt"))
    assert len(chance_levels([dense, pruned])) == 1
    assert chance_levels([pruned]) == []
