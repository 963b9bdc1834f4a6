"""Workers, machines, the scheduler and the client are killed at random while a suite runs: nothing is lost or left."""

import logging
import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from coreml_prune_bench.cluster.worker_process import START_SECONDS
from coreml_prune_bench.records.accuracy import read_records
from tests.cluster.clusters import SUITE, Cluster, children, kill
from tests.cluster.test_run import in_process, json_of, one_processor  # noqa: F401  (a fixture)

KILLS = int(os.environ.get("CLUSTER_KILLS", 50))
MACHINES = ("one", "two")
CELLS = 5
LOG = logging.getLogger(__name__)


class Sweep:
    """Runs of one suite into one folder, the next where the last one was ended."""

    def __init__(self, cluster: Cluster, suite: Path, results: Path) -> None:
        self._cluster = cluster
        self._command = ("run", "--suite", suite, "--results", results, "--threads", 1)
        self._results = results
        self.client = self._start()

    def _start(self) -> subprocess.Popen:
        self._before = self.measured()
        return self._cluster.client(*self._command)

    def go_on(self) -> None:
        """Start the client again, where it has ended."""
        if self.client.poll() is not None:
            self.heard()
            self.client = self._start()

    def wait_for(self, count: int, then_s: float) -> None:
        """Until so many cells are measured and then some seconds, or until the client has ended."""
        while len(self.measured()) < count and self.client.poll() is None:
            time.sleep(0.1)
        time.sleep(then_s)

    def heard(self) -> str:
        """What the client said until its end. What had a record before it was not measured again."""
        below = children(self.client.pid)
        errors = self.client.communicate(timeout=600)[1]
        assert self._before.items() <= self.measured().items(), errors
        assert not any(psutil.pid_exists(pid) for pid in below)
        return errors

    def measured(self) -> dict[str, bytes]:
        """Records by name. One that was measured again has another time in it."""
        files = self._results.glob("records/*.json")
        return {path.name: content for path in files if b'"status": "measured"' in (content := path.read_bytes())}


def hit(cluster: Cluster, sweep: Sweep, victim: str, draw: random.Random) -> None:
    """Kill one, and put something in its place."""
    if victim == "worker":
        kill(draw.choice(cluster.worker_processes()))
    elif victim == "client":
        kill(sweep.client.pid)
        sweep.client.wait()
    elif victim == "machine":
        name = draw.choice(MACHINES)
        cluster.kill(name)
        cluster.join(name)
    else:
        cluster.kill("scheduler")
        for name in MACHINES:
            cluster.processes[name].wait(4 * START_SECONDS)  # where its worker was just starting anew
        sweep.client.wait(120)
        cluster.start()
        for name in MACHINES:
            cluster.join(name)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are fixed on Linux alone")
def test_killed_at_random_and_resumed_the_table_is_the_same_and_nothing_is_left(
    one_processor,  # noqa: F811
    tmp_path,
    record_property,
):
    suite = tmp_path / "several.toml"
    suite.write_text(SUITE.replace("SPARSITY", "[0.5, 0.6, 0.7, 0.8]"))
    expected = in_process(suite, tmp_path / "here")
    draw, victims = random.Random(KILLS), Counter[str]()
    cluster = Cluster(tmp_path)
    sweeps = 0
    try:
        for name in MACHINES:
            cluster.join(name)
        while victims.total() < KILLS:
            sweeps += 1
            results = tmp_path / f"results{sweeps}"
            sweep = Sweep(cluster, suite, results)
            for _ in range(draw.randint(1, 4)):
                sweep.wait_for(draw.randint(0, CELLS - 1), draw.uniform(0, 4))
                if sweep.client.poll() is not None:
                    break
                victim = draw.choice(["worker", "machine", "scheduler", "client"])
                hit(cluster, sweep, victim, draw)
                victims[victim] += 1
                LOG.info(
                    f"kill {victims.total()} of {KILLS}: {victim}; {len(sweep.measured())} of {CELLS} cells measured"
                )
                sweep.go_on()
            errors = sweep.heard()
            while (
                len(sweep.measured()) < CELLS
            ):  # a task whose worker was killed three times has failed until the next run
                sweep.go_on()
                errors = sweep.heard()
            assert json_of(read_records(results)) == expected, (sweeps, errors)
    finally:
        cluster.end()
        told = (
            f"{sweeps} sweeps, {victims.total()} kills: {', '.join(f'{n} of a {name}' for name, n in victims.items())}"
        )
        LOG.info(told)
        record_property("kills", told)
    assert cluster.left() == []
