"""How tasks find workers: simulated suites, whose steps sleep for a small part of what real ones take."""

import hashlib
import io
import logging
import random
import re
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import dask
import pytest
from distributed import Client, LocalCluster, Worker

from coreml_prune_bench.accuracy.runtime import PORTABLE
from coreml_prune_bench.bench.cells import Cell, lay_out
from coreml_prune_bench.bench.run import RunOptions, failed
from coreml_prune_bench.bench.suite import Suite, load_suite
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.cluster import client as of_client
from coreml_prune_bench.cluster.asked import Asked, facts_of
from coreml_prune_bench.cluster.client import HowOnCluster, OnCluster, _task_of
from coreml_prune_bench.cluster.dask_settings import dask_settings
from coreml_prune_bench.cluster.flying import Flying
from coreml_prune_bench.cluster.order import Waiting
from coreml_prune_bench.cluster.parcel import Parcel
from coreml_prune_bench.cluster.versions import versions
from coreml_prune_bench.core import keys
from coreml_prune_bench.core.errors import CellFailedError
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.models import registry
from coreml_prune_bench.records.store import Store
from tests.tiny_network import TINY

LOG = logging.getLogger(__name__)
SMALL, LARGE = 7, 65
"""Minutes of a core for 50,000 images, as docs/data.md has them: networks like MobileNetV2, and like ResNet50."""
PACKAGE = 1
"""Minutes of a dense package."""
MINUTE_S = 0.01
"""That one of them sleeps."""
WORKERS = 2
PARCEL_BYTES = 102_400
STARTED: list[int] = []
"""The places of cells that workers began, all of which are in this process."""


def minutes_of(name: str) -> int:
    """Of one of a network's cells: every second network is a large one, the last one among them."""
    (number,) = re.findall(r"^sleeper(\d+),", name)
    return LARGE if int(number) % 2 else SMALL


def sleep_and_make(order, part, needs):
    time.sleep(PACKAGE * MINUTE_S)


def sleep_and_make_a_parcel(order, part, needs):
    sleep_and_make(order, part, needs)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights", bytes(PARCEL_BYTES))
    files = buffer.getvalue()
    return Parcel({}, files, hashlib.sha256(files).hexdigest())


def sleep_and_measure(order, wanted, needs, own):
    STARTED.append(order.position)
    time.sleep(minutes_of(order.name) * MINUTE_S)
    return order.position


class OnSleepers(OnCluster):
    """What comes back holds nothing. Networks are pre-trained."""

    def __init__(self, client, asked, cells, how):
        super().__init__(client, asked, cells, how)
        self.landed: list[int] = []
        self._nothing = failed(cells[0], CellFailedError("slept"))  # (asks git, which takes longer than a step here)

    def _part_keys(self, cell):
        return {part: key for part, key in super()._part_keys(cell).items() if part != "network"}

    def _received(self, cell, ended, wanted, options):
        self.landed.append(ended.result)
        return self._nothing, minutes_of(f"{cell.name},") * MINUTE_S


class Welcome:
    """In the place of the question whether workers fit."""

    is_asking = False

    def __init__(self, *arguments):
        self.refused: dict[str, str] = {}
        self.there = self.fit = [SimpleNamespace(resources={"CPU": 1}, address="")] * WORKERS

    def look(self):
        pass


def suite_of(networks: int, configs: int, trials: int, tiny_suite, monkeypatch) -> list[Cell]:
    base = load_suite(str(tiny_suite))
    monkeypatch.setattr(keys, "version", cache(keys.version))  # which takes longer than a step here
    names = [f"sleeper{number}" for number in range(networks)]
    for name in names:
        monkeypatch.setitem(registry._REGISTRY, name, replace(TINY, name=name))
    fine_tuned = next(config for config in base.configs if config.algorithm == "magnitude-pruner")
    several = [
        fine_tuned.model_copy(update={"sparsity": (1 + n) / (configs + 1), "label": f"c{n}"}) for n in range(configs)
    ]
    cells = lay_out(Suite(**{**dict(base), "models": tuple(names), "configs": tuple(several), "trials": trials}), None)
    assert len({cell.key for cell in cells}) == len(cells)  # (which a run has worked out before it goes to a cluster)
    return cells


@contextmanager
def sleepers(
    workers: int, cells: list[Cell], tiny_suite, monkeypatch
) -> Iterator[tuple[LocalCluster, Callable[[], OnSleepers]]]:
    """A cluster of this process, and what makes a run on it. Nothing of theirs is held there in the end."""
    monkeypatch.setattr(f"{__name__}.WORKERS", workers)
    monkeypatch.setattr(of_client, "measure", sleep_and_measure)
    monkeypatch.setattr(of_client, "make", sleep_and_make)
    monkeypatch.setattr(of_client, "Admission", Welcome)
    asked = Asked(SuiteChoice(load_suite(str(tiny_suite))), PORTABLE, versions(), facts_of(cells[:1]), len(cells))
    with (
        dask_settings(),
        dask.config.set({"distributed.worker.memory.terminate": False}),
        LocalCluster(
            n_workers=workers,
            processes=False,
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=0,
            resources={"CPU": 1, asked.tag: 1},
        ) as cluster,
        ExitStack() as stack,
    ):
        yield cluster, lambda: OnSleepers(stack.enter_context(Client(cluster)), asked, cells, HowOnCluster())
        stack.close()
        wait_until(lambda: not cluster.scheduler.tasks)


def seconds_on(workers: int, cells: list[Cell], tiny_suite, tmp_path, monkeypatch) -> float:
    reporter = Reporter()
    with (
        sleepers(workers, cells, tiny_suite, monkeypatch) as (_, new_run),
        reporter.steps("cells", len(cells)) as steps,
    ):
        run, began = new_run(), time.monotonic()
        found = list(run(cells, RunOptions(Store(tmp_path / str(workers)), reporter), steps))
        took = time.monotonic() - began
    assert Counter(one.cell.key for one in found) == Counter(cell.key for cell in cells)  # each once
    assert Counter(run.landed) == Counter(range(len(cells)))
    return took


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "minute_s"), [(2, 0.01), (8, 0.04), (64, 0.64)])
def test_a_study_takes_as_long_as_its_work_or_its_longest_chain(
    workers, minute_s, tiny_suite, tmp_path, monkeypatch, record_property
):
    """20 pre-trained networks, 10 configs, 3 trials, in two minutes, or four: all workers share this process."""
    monkeypatch.setattr(f"{__name__}.MINUTE_S", minute_s)
    cells = suite_of(20, 10, 3, tiny_suite, monkeypatch)
    assert len(cells) == 620
    work = sum(minutes_of(f"{cell.name},") for cell in cells) + 20 * PACKAGE
    chain = PACKAGE + LARGE
    took = seconds_on(workers, cells, tiny_suite, tmp_path, monkeypatch) / MINUTE_S
    least = max(work / workers, chain)
    told = (
        f"{workers} workers: {took:.0f} min of a study of {work:,} min of work, whose longest chain, the dense package "
        f"of a large network and one of its cells, is {chain} min: {took / least:.3f} times {least:.0f} min"
    )
    LOG.info(told)
    record_property("took", told)
    assert took <= 1.1 * least, told


def test_each_cell_is_measured_once_and_nothing_is_held_in_the_end(tiny_suite, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.MINUTE_S", 0)
    seconds_on(2, suite_of(2, 3, 2, tiny_suite, monkeypatch), tiny_suite, tmp_path, monkeypatch)


def running_workers(cluster: LocalCluster) -> list[Worker]:
    return [worker for worker in cluster.workers.values() if worker.status.name == "running"]


def wait_until(holds: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.005)


def test_workers_that_die_and_others_that_join_cost_what_was_in_flight(tiny_suite, tmp_path, monkeypatch):
    """And a client that stops costs nothing that it had."""
    monkeypatch.setattr(f"{__name__}.MINUTE_S", 0.002)
    cells = suite_of(2, 4, 2, tiny_suite, monkeypatch)
    options, draw = RunOptions(Store(tmp_path)), random.Random(26)
    kills = [draw.random() < 0.5 for _ in cells]
    STARTED.clear()
    places = {cell.key: place for place, cell in enumerate(cells)}
    done: list[str] = []
    landed_at: dict[str, int] = {}
    with (
        sleepers(3, cells, tiny_suite, monkeypatch) as (cluster, new_run),
        options.reporter.steps("cells", len(cells)) as steps,
    ):
        for stops_after in (5, len(cells)):
            missing = [cell for cell in cells if cell.key not in done]
            for one in new_run()(missing, options, steps):
                # Until the scheduler has heard that its result is here, the cell is still in flight.
                wait_until(lambda key=_task_of(one.cell): key not in cluster.scheduler.tasks)
                landed_at[one.cell.key] = len(STARTED)
                if kills[len(done)]:
                    wait_until(lambda: running_workers(cluster))
                    victim = draw.choice(running_workers(cluster))
                    cluster.sync(victim.close, nanny=False, executor_wait=False)
                    cluster.scale(len(cluster.workers) + 1)
                done.append(one.cell.key)
                if len(done) == stops_after:
                    break
    assert Counter(done) == Counter(cell.key for cell in cells)
    assert sum(kills) > 3
    assert set(STARTED) == set(range(len(cells)))
    assert all(places[key] not in STARTED[when:] for key, when in landed_at.items())


def test_a_package_comes_to_each_worker_and_to_the_client_at_most_once(tiny_suite, tmp_path, monkeypatch):
    """Also where a worker has cells of other networks in between."""
    networks, workers = 3, 3
    monkeypatch.setattr(f"{__name__}.MINUTE_S", 0.002)
    cells = suite_of(networks, 4, 2, tiny_suite, monkeypatch)
    options = RunOptions(Store(tmp_path))
    with (
        sleepers(workers, cells, tiny_suite, monkeypatch) as (cluster, new_run),
        options.reporter.steps("cells", len(cells)) as steps,
    ):
        monkeypatch.setattr(of_client, "make", sleep_and_make_a_parcel)
        assert len(list(new_run()(cells, options, steps))) == len(cells)
        came = [sum(one["total"] for one in worker.transfer_incoming_log) for worker in cluster.workers.values()]
        sent = sum(worker.transfer_outgoing_bytes_total for worker in cluster.workers.values())
    assert all(bytes_ < 1.1 * networks * PARCEL_BYTES for bytes_ in came), came
    to_client = networks * PARCEL_BYTES
    assert to_client <= sent < 1.1 * (sum(came) + to_client)


class Sends(OnCluster):
    """Sends nothing anywhere, and trains without a dense package."""

    def _part_keys(self, cell):
        return {}

    def _send(self, cell, wanted, options):
        built = SimpleNamespace(done=lambda: cell.key in self.built)
        self._flying[len(self._flying)] = Flying(cell, [], 0, self._kind_of(cell), [], built)


def test_a_gpu_goes_on_while_cores_evaluate_what_it_built(tiny_suite, monkeypatch):
    """But not without end: packages wait with the workers."""
    trained = [cell for cell in suite_of(1, 5, 4, tiny_suite, monkeypatch) if cell.config]
    run = Sends(None, None, trained, HowOnCluster())
    run._gpu, run.built = True, set()
    fit = [SimpleNamespace(resources={"GPU": 1, "CPU": 1}), SimpleNamespace(resources={"CPU": 1})]
    waiting = Waiting(trained)

    def sent():
        run._send_those_that_may_go(waiting, "record", SimpleNamespace(fit=fit), None)
        return len(run._flying)

    assert sent() == 2
    assert sent() == 2
    run.built |= {flew.cell.key for flew in run._flying.values()}
    assert sent() == 4
    run.built |= {flew.cell.key for flew in run._flying.values()}
    assert sent() == 6
    run.built |= {flew.cell.key for flew in run._flying.values()}
    # Two places of the GPU, four of both cores, two more for a Mac that may join.
    assert sent() == 8
    run.built |= {flew.cell.key for flew in run._flying.values()}
    assert sent() == 8
