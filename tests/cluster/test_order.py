"""Which cell goes next: what is known to take longest, once something is known."""

from dataclasses import replace

import pytest

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.cluster.order import Waiting


@pytest.fixture(scope="module")
def cells(tiny_suite):
    """One dense cell, two of post-training pruning, one of SparseGPT, two of MagnitudePruner."""
    return lay_out(load_suite(str(tiny_suite)), None)


def everything(waiting, may_go=lambda cell: True):
    taken = []
    while (cell := waiting.take(may_go)) is not None:
        taken.append(cell)
    return taken


def test_while_nothing_is_known_one_of_each_kind_goes_then_the_next_of_each(cells):
    waiting = Waiting(cells)
    taken = [cell.algorithm for cell in everything(waiting)]
    assert taken == ["dense", "post-training", "sparse-gpt", "magnitude-pruner", "post-training", "magnitude-pruner"]
    assert len(waiting) == 0


def test_what_takes_longest_goes_first_and_what_is_not_known_before_it(cells):
    waiting = Waiting(cells)
    dense, post = (waiting.take(lambda cell, name=name: cell.algorithm == name) for name in ("dense", "post-training"))
    waiting.took(dense, 1)
    waiting.took(post, 60)
    tuned = waiting.take(lambda cell: cell.algorithm == "magnitude-pruner")
    waiting.took(tuned, 20)
    assert [cell.algorithm for cell in everything(waiting)] == ["sparse-gpt", "post-training", "magnitude-pruner"]


def test_what_may_not_go_yet_stays(cells):
    waiting = Waiting(cells)
    assert [cell.algorithm for cell in everything(waiting, lambda cell: cell.config is None)] == ["dense"]
    assert len(waiting) == len(cells) - 1
    assert [cell.algorithm for cell in waiting.first] == ["post-training", "sparse-gpt", "magnitude-pruner"]


def test_each_cell_goes_once(cells):
    other = [replace(cell, trial=7) for cell in cells]
    assert sorted(cell.key for cell in everything(Waiting([*cells, *other]))) == sorted(
        cell.key for cell in [*cells, *other]
    )
