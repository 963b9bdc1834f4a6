"""What a run hears of its tasks, and says of them."""

import pytest

from coreml_prune_bench.advice.budget import OutOfTimeError
from coreml_prune_bench.cluster.heard import Heard
from coreml_prune_bench.core.progress import Reporter


def told(kind, machine="box", **content):
    return (0, {"kind": kind, "task": "key", "name": "tiny, dense", "machine": machine, **content})


@pytest.fixture
def heard():
    """It, and the steps that it told of; the third one says that the time is up."""
    steps = []

    class Steps:
        def update(self, description, done, total):
            steps.append((description, done, total))
            if len(steps) == 3:
                raise OutOfTimeError("the time is up")

    one = Heard("topic", Reporter(), Steps())
    one.expect("key", "tiny, dense")
    return one, steps


def test_it_knows_where_a_task_runs_and_why_its_worker_ended(heard):
    one, _ = heard
    one(told("start"))
    assert one.running == ["tiny, dense on box"]
    one(told("end", why="not enough memory"))
    one(told("start", "big"))
    assert one.running == ["tiny, dense on big"]
    assert one.of("key", "").why_it_failed == "its worker ended 3 times: on box, big (box: not enough memory)"
    one(told("done", "big"))
    assert one.running == []
    assert one.forget("key").machine == "big"
    one(told("line", line="late"))  # of what has landed


def test_where_what_only_waited_is_given_up_the_one_at_work_beside_it_tells_why(heard):
    one, _ = heard
    for waiting in ("first part", "last part"):
        one.expect(waiting, waiting)
    beside = ["first part", "key", "last part"]
    assert (
        one.of_given_up("last part", beside, "").why_it_failed == "its worker ended 3 times: on no machine that said so"
    )
    one(told("start"))
    one(told("end", why="not enough memory"))
    why = "its worker ended 3 times: on box (box: not enough memory)"
    assert one.of_given_up("last part", beside, "").why_it_failed == why
    assert one.of_given_up("key", beside, "").why_it_failed == why
    one(told("done"))
    assert one.of_given_up("last part", beside, "").machine is None


def test_who_watches_the_steps_ends_the_run_not_dask_s_thread(heard):
    one, steps = heard
    for done in range(4):
        one(told("step", description="training", done=done, total=9))
    assert steps[0] == ("box: training", 0, 9)
    assert isinstance(one.stop, OutOfTimeError)
