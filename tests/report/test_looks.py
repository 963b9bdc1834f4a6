"""How an algorithm looks follows from its name, and from nothing else."""

from coreml_prune_bench.models.pruning.algorithm import algorithms
from coreml_prune_bench.report.looks import LOOKS, series_of_names


def test_an_algorithm_looks_the_same_whatever_stands_beside_it():
    assert series_of_names(["SparseGPT"]) == {"SparseGPT": 2}
    assert series_of_names(["SparseGPT", "my own", "not pruned"]) == {
        "not pruned": 0, "SparseGPT": 2, **series_of_names(["my own"]),
    }  # fmt: skip


def test_the_algorithms_that_ship_have_places_of_their_own():
    titles = [one.title if one.title != "n/a" else "not pruned" for one in algorithms()]
    numbers = series_of_names(titles)
    assert len(set(numbers.values())) == len(set(titles))
    assert max(numbers.values()) < 8


def test_others_stay_apart_as_long_as_there_is_place():
    names = [f"algorithm {number}" for number in range(40)]
    numbers = series_of_names(names)
    assert len(set(numbers.values())) == 40
    assert min(numbers.values()) >= 8
    assert len(series_of_names(map(str, range(100)))) == 100
    assert max(series_of_names(map(str, range(100))).values()) < LOOKS
