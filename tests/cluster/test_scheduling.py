"""How tasks find workers: simulated suites, whose steps sleep for a thousandth of what real ones take."""

import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import dask
import pytest
from distributed import Client, LocalCluster

from coreml_prune_bench.accuracy.runtime import PORTABLE
from coreml_prune_bench.bench.cells import Cell, lay_out
from coreml_prune_bench.bench.run import RunOptions, failed
from coreml_prune_bench.bench.suite import Suite, load_suite
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.cluster import client as of_client
from coreml_prune_bench.cluster.asked import Asked, facts_of
from coreml_prune_bench.cluster.client import HowOnCluster, OnCluster
from coreml_prune_bench.cluster.dask_settings import dask_settings
from coreml_prune_bench.cluster.versions import versions
from coreml_prune_bench.core.errors import CellFailedError
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.models import registry
from coreml_prune_bench.records.store import Store
from tests.tiny_network import TINY

NETWORK_S, PACKAGE_S, CELL_S = 1.2, 0.06, 0.6
"""A network's training, its dense package, a cell: 20 minutes, 1 minute and 10 minutes, each 1,000 times as fast."""


def sleep_and_make(order, part, needs):
    time.sleep(NETWORK_S if part == "network" else PACKAGE_S)


def sleep_and_measure(order, needs, own):
    time.sleep(CELL_S)
    return order.position


class OnSleepers(OnCluster):
    """What comes back holds nothing."""

    def __init__(self, client, asked, cells, how):
        super().__init__(client, asked, cells, how)
        self.landed: list[int] = []
        self._nothing = failed(cells[0], CellFailedError("slept"))  # (asks git, which takes longer than a step here)

    def _received(self, cell, future, options):
        self.landed.append(future.result())
        return self._nothing


class Welcome:
    """In the place of the question whether workers fit."""

    is_asking = False

    def __init__(self, *arguments):
        self.refused: dict[str, str] = {}
        self.there = self.fit = [SimpleNamespace(resources={"CPU": 1})]

    def look(self):
        pass


def suite_of(networks: int, configs: int, trials: int, tiny_suite, monkeypatch) -> list[Cell]:
    base = load_suite(str(tiny_suite))
    names = [f"sleeper{number}" for number in range(networks)]
    for name in names:
        monkeypatch.setitem(registry._REGISTRY, name, replace(TINY, name=name))
    fine_tuned = next(config for config in base.configs if config.algorithm == "magnitude-pruner")
    several = [
        fine_tuned.model_copy(update={"sparsity": (1 + n) / (configs + 1), "label": f"c{n}"}) for n in range(configs)
    ]
    return lay_out(Suite(**{**dict(base), "models": tuple(names), "configs": tuple(several), "trials": trials}), None)


def seconds_on(workers: int, cells: list[Cell], tiny_suite, tmp_path, monkeypatch) -> float:
    monkeypatch.setattr(of_client, "measure", sleep_and_measure)
    monkeypatch.setattr(of_client, "make", sleep_and_make)
    monkeypatch.setattr(of_client, "Admission", Welcome)
    asked = Asked(SuiteChoice(load_suite(str(tiny_suite))), PORTABLE, versions(), facts_of(cells[:1]), len(cells))
    reporter = Reporter()
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
        Client(cluster) as client,
        reporter.steps("cells", len(cells)) as steps,
    ):
        run = OnSleepers(client, asked, cells, HowOnCluster())
        began = time.monotonic()
        found = list(run(cells, RunOptions(Store(tmp_path / str(workers)), reporter), steps))
        took = time.monotonic() - began
        assert Counter(one.cell.key for one in found) == Counter(cell.key for cell in cells)  # each once
        assert Counter(run.landed) == Counter(range(len(cells)))
        until = time.monotonic() + 10
        while held := client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            assert time.monotonic() < until, held
            time.sleep(0.05)
    return took


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 8])
def test_a_suite_takes_as_long_as_its_work_or_its_longest_chain(
    workers, tiny_suite, tmp_path, monkeypatch, record_property
):
    """Networks with 10 configs and 3 trials each. More workers in this one process wait for Python's lock instead."""
    networks = {2: 1, 8: 4}[workers]
    cells = suite_of(networks, 10, 3, tiny_suite, monkeypatch)
    assert len(cells) == networks * 31
    work_s = networks * (NETWORK_S + PACKAGE_S) + len(cells) * CELL_S
    chain_s = NETWORK_S + PACKAGE_S + CELL_S
    took = seconds_on(workers, cells, tiny_suite, tmp_path, monkeypatch)
    least_s = max(work_s / workers, chain_s)
    record_property("took", f"{took:.2f} s; work {work_s / workers:.2f} s, chain {chain_s:.2f} s: {took / least_s:.3f}")
    assert took <= 1.25 * least_s


def test_each_cell_is_measured_once_and_nothing_is_held_in_the_end(tiny_suite, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.cluster.test_scheduling.CELL_S", 0)
    seconds_on(2, suite_of(2, 3, 2, tiny_suite, monkeypatch), tiny_suite, tmp_path, monkeypatch)
