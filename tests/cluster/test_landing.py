"""What tasks returned comes here, whatever becomes of the worker that has it."""

import asyncio
import os
import time
from concurrent.futures import CancelledError
from threading import Thread
from types import SimpleNamespace

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

    def __init__(self, client, result, status="finished"):
        self.client, self.status, self._result = client, status, result

    def add_done_callback(self, call):
        call(self)

    def __await__(self):
        return self._ended().__await__()

    async def _ended(self):
        if isinstance(self._result, BaseException):
            raise self._result
        if self._result is NEVER:
            await asyncio.Event().wait()
        return self._result


NEVER = object()


@pytest.fixture
def client():
    """Its loop runs in a thread, as that of Dask's."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()

    def add_callback(call, *arguments):
        loop.call_soon_threadsafe(
            lambda: loop.create_task(call(*arguments)) if asyncio.iscoroutinefunction(call) else call(*arguments)
        )

    yield SimpleNamespace(loop=SimpleNamespace(add_callback=add_callback))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_what_a_task_returned_or_raised_comes(client):
    landing, lost, failed = Landing(), CancelledError(), ValueError("no")
    assert landing.next(0.01) is None
    for result in (3, failed, lost):
        landing.watch(Ended(client, result))
    found = [landing.next(5) for _ in range(3)]
    assert [one.result for one in found] == [3, None, None]
    assert [one.error for one in found] == [None, failed, lost]
    assert [one.is_lost for one in found] == [False, False, True]
    landing.watch(Ended(client, NEVER), fetch=False)
    assert landing.next(5).result is None
    # A result that came is here, whatever becomes of its worker.
    landing.watch(Ended(client, 3, "lost"))
    assert not landing.next(5).is_lost


def test_one_that_has_to_be_done_again_keeps_no_other_back_and_few_wait_here(client):
    landing = Landing()
    landing.watch(Ended(client, NEVER))
    for number in range(20):
        landing.watch(Ended(client, number))
    assert landing.next(5).result == 0
    time.sleep(0.2)
    assert landing._landed.qsize() < 8
    assert [landing.next(5).result for _ in range(19)] == list(range(1, 20))
