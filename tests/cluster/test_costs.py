"""What a cluster costs: time beside the cells', and memory over many. Timings are told, and nothing asserts them."""

import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path

import dask
import psutil
import pytest

from coreml_prune_bench.accuracy.runtime import PORTABLE
from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.cluster.client import HowOnCluster
from coreml_prune_bench.cluster.connect import Where
from coreml_prune_bench.cluster.run import Elsewhere
from coreml_prune_bench.records.store import Store
from tests.cluster import test_scheduling, trivial
from tests.cluster.test_scheduling import OnSleepers, seconds_on, suite_of

pytestmark = pytest.mark.slow

SUITE = """
description = "ten configs, twenty trials each"
models = ["tiny"]
weights = "none"
trials = 20
[data]
default = "digits"
[training]
epochs = 1
[[configs]]
algorithm = "magnitude-pruner"
sparsity = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
training = { epochs = 1 }
"""
CELLS = 201
LOG = logging.getLogger(__name__)


class Clocked(Store):
    """Keeps when each record was written, in seconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.at_s: list[float] = []

    def write_record(self, name, record):
        written = super().write_record(name, record)
        self.at_s.append(time.perf_counter())
        return written

    @property
    def between_ms(self) -> float:
        """On average between two of them; what starts and ends a run is no part of it."""
        return 1e3 * (self.at_s[-1] - self.at_s[0]) / (len(self.at_s) - 1)


@pytest.mark.parametrize("workers", [1])
def test_what_a_trivial_cell_takes_on_a_worker_and_here(tmp_path, monkeypatch, record_property, workers):
    path = tmp_path / "trivial.toml"
    path.write_text(SUITE)
    cells = lay_out(load_suite(str(path)), None)
    assert len(cells) == CELLS
    first = tmp_path / "first"
    run(cells[:1], RunOptions(Store(first)))  # a real one: its network and package go to the worker
    (record,) = first.glob("records/*.json")
    monkeypatch.setenv(trivial.RECORD, str(record))
    monkeypatch.setattr("coreml_prune_bench.bench.run.attempt", trivial.attempt)
    here, there = Clocked(tmp_path / "here"), Clocked(first)
    assert run(cells, RunOptions(here)).measured == CELLS
    where = Where(f"local:{workers}", tmp_path)
    with (
        dask.config.set({"distributed.worker.preload": ["tests.cluster.trivial"]}),
        Elsewhere(where, HowOnCluster(threads=1), "auto", tmp_path) as others,
    ):
        began = time.process_time()
        on_worker = others.on(SuiteChoice(str(path)), cells, PORTABLE).measure
        assert run(cells, RunOptions(there), on_worker).measured == CELLS - 1
        client_ms = 1e3 * (time.process_time() - began) / CELLS
    told = (
        f"{CELLS} trivial cells: {here.between_ms:.1f} ms each in this process, {there.between_ms:.1f} ms on a worker "
        f"of this machine ({client_ms:.1f} ms of them this process and scheduler compute): "
        f"{there.between_ms - here.between_ms:.1f} ms more"
    )
    LOG.info(told)
    record_property("overhead", told)


MANY = 10_000
EARLY = 2_000
GROWTH_BYTES = 30_000_000
"""From the 2,000th cell to the last. A record and a package would be more in each."""


def test_memory_of_client_and_scheduler_does_not_grow_with_the_cells(
    tiny_suite, tmp_path, monkeypatch, record_property
):
    """Both, and two workers, are in this process. The records, which a run keeps, are one and the same here."""
    sizes: dict[int, int] = {}
    resident: Callable[[], int] = lambda: psutil.Process().memory_info().rss  # noqa: E731

    class Watched(OnSleepers):
        def _received(self, cell, ended, wanted, options):
            if len(self.landed) % 1_000 == 0:
                gc.collect()
                sizes[len(self.landed)] = resident()
            return super()._received(cell, ended, wanted, options)

    monkeypatch.setattr(test_scheduling, "MINUTE_S", 0)
    monkeypatch.setattr(test_scheduling, "OnSleepers", Watched)
    cells = suite_of(1, 100, 100, tiny_suite, monkeypatch)
    assert len(cells) == MANY + 1
    took = seconds_on(2, cells, tiny_suite, tmp_path, monkeypatch)
    growth = sizes[MANY] - sizes[EARLY]
    told = ", ".join(f"{count:,}: {size / 1e6:,.0f} MB" for count, size in sizes.items())
    told = f"resident after so many cells: {told}; {1e3 * took / MANY:.1f} ms a cell"
    LOG.info(told)
    record_property("memory", told)
    assert growth < GROWTH_BYTES, told
