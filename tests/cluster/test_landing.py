"""What tasks returned comes here, whatever becomes of the worker that has it."""

import os
from asyncio import CancelledError

import dask
import pytest

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.cluster.client import HowOnCluster
from coreml_prune_bench.cluster.connect import Where
from coreml_prune_bench.cluster.landing import Landing
from coreml_prune_bench.cluster.run import Elsewhere
from coreml_prune_bench.records.store import Store
from tests.cluster import dying_with_results
from tests.cluster.test_run import SMALLEST


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="as test_run")
def test_a_worker_that_dies_with_a_result_costs_that_result_alone(tmp_path, monkeypatch):
    """It starts anew, and has to be asked again whether it fits before the task can be done again."""
    suite, died = tmp_path / "small.toml", tmp_path / "died"
    suite.write_text(SMALLEST)
    cells = lay_out(load_suite(str(suite)), None)
    monkeypatch.setenv(dying_with_results.DIED, str(died))
    with (
        dask.config.set({"distributed.worker.preload": ["tests.cluster.dying_with_results"]}),
        Elsewhere(Where("local:1", tmp_path), HowOnCluster(threads=1), "auto", tmp_path / "results") as others,
    ):
        outcome = run(cells, RunOptions(Store(tmp_path / "results")), others.on(SuiteChoice(str(suite)), cells).measure)
    assert died.exists()
    assert [record.status for record in outcome.records] == ["measured"] * 2


class Ended:
    """A future of a task that has ended."""

    def __init__(self, result, status="finished"):
        self.status, self._result = status, result

    def add_done_callback(self, call):
        call(self)

    def result(self):
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


def test_what_a_task_returned_or_raised_comes_in_the_order_of_their_ends():
    landing, lost, failed = Landing(), CancelledError(), ValueError("no")
    assert landing.next(0.01) is None
    for result in (3, failed, lost):
        landing.watch(Ended(result))
    landing.watch(Ended(4), fetch=False)
    found = [landing.next(0.01) for _ in range(4)]
    assert [one.result for one in found] == [3, None, None, None]
    assert [one.error for one in found] == [None, failed, lost, None]
    assert [one.is_lost for one in found] == [False, False, True, False]
    landing.watch(Ended(3, "lost"))
    assert landing.next(0.01).is_lost
