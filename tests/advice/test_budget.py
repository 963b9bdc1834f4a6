"""The time `advise` keeps."""

import pytest

from coreml_prune_bench.advice.budget import Budget, OutOfTimeError, read_duration
from coreml_prune_bench.core.errors import BenchError


def test_work_ends_when_the_time_is_up_or_its_pace_says_it_will_be(clock):
    budget = Budget(100)
    for step in range(10):
        clock[0] += 4
        budget.watch("a", step, 20)  # 80 s in all
    for step in range(3):
        clock[0] += 4
        budget.watch("b", step, 20)
    clock[0] += 4
    with pytest.raises(OutOfTimeError, match="b: 0:01:08 more needed, 0:00:44 left"):
        budget.watch("b", 3, 20)
    clock[0] += 60
    with pytest.raises(OutOfTimeError, match="c: the time is up"):
        budget.watch("c", 0, 20)
    budget.lift()
    budget.watch("c", 1, 20)


def test_phases_that_share_a_name_have_each_their_pace(clock):
    budget = Budget(1000)
    for step in range(700):
        clock[0] += 0.5
        budget.watch("pruning", step, 700)
    for step in range(4000):
        clock[0] += 0.01
        budget.watch("pruning", step, 4000)
    for _ in range(2):  # the same work on other images
        for step in range(40):
            clock[0] += 5
            budget.watch("evaluating", step, 40)


def test_resumed_work_is_judged_by_what_it_does_now(clock):
    budget = Budget(100)
    for step in range(90, 100):
        budget.watch("a", step, 100)
        clock[0] += 9


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_a_time_is_a_number_with_a_unit(text, seconds):
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-3m", "0s", "3 days"])
def test_what_is_no_time(text):
    with pytest.raises(BenchError, match="is no time: expected a number with s, m or h"):
        read_duration(text)


@pytest.mark.parametrize("text", ["99999999h", "9" * 400 + "s"])
def test_a_time_that_ends_in_no_lifetime(text):
    with pytest.raises(BenchError, match="is longer than ten years"):
        read_duration(text)
