"""What a worker is: its machine's name, its own data and weights, its processors, and what it does at the moment.

A plugin of Dask's worker. Its scratch store lies in the worker's own folder, which Dask removes when the worker ends,
and the next worker of the machine where that one was killed.
"""

import asyncio
import os
import shutil
import signal
import tempfile
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distributed import Worker, WorkerPlugin

from coreml_prune_bench.cluster.versions import Versions
from coreml_prune_bench.records.store import Store

Kind = Literal["cpu", "gpu", "mac"]

CPU, GPU, ANE = "CPU", "GPU", "ANE"
"""Resources of workers, of which each step needs one."""
NAME = "coreml-prune-bench"
"""Of the plugin, and of what it tells with each heartbeat."""

_MOST_REMEMBERED = 4
"""Suites and data sets."""


@dataclass
class Workplace(WorkerPlugin):
    """machine: its name in progress and reasons. data, weights: as the options; None for those of the client.

    processors: those that this worker computes on, as the operating system counts them; empty where it cannot be said.
    shared: a folder that other workers have, too, for what they build on the way; None for one of its own.
    process: names this one, of several that a worker may have had at its address.
    """

    machine: str
    kind: Kind
    versions: Versions
    data: tuple[str, ...] | None = None
    weights: Path | None = None
    processors: tuple[int, ...] = ()
    shared: Path | None = None
    name = NAME
    remembered: dict[str, Any] = field(default_factory=dict)
    doing: str = ""
    process: str = ""
    scratch: Path | None = None
    loop: Any = None

    def setup(self, worker: Worker) -> None:
        """Called by Dask in the worker's process."""
        if threading.current_thread() is threading.main_thread():
            # A terminal's Ctrl-C reaches every process of its own: who started this one ends it, after a word.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.loop = asyncio.get_running_loop()
        self.process = uuid.uuid4().hex
        self.scratch = Path(worker.local_directory) / "store"
        # What converters leave there when the process is ended goes with the worker's folder.
        tempfile.tempdir = os.environ["TMPDIR"] = worker.local_directory
        worker.metrics[NAME] = self.told

    def teardown(self, worker: Worker) -> None:
        """Called by Dask when the worker ends as it should."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)

    async def told(self, worker: Worker) -> dict[str, Any]:
        """What the scheduler hears with each heartbeat, in plain types: a client of other code has to read it."""
        return {
            "machine": self.machine,
            "kind": self.kind,
            "versions": self.versions,
            "doing": self.doing,
            "process": self.process,
            "cores": max(1, len(self.processors)),
            "sent_bytes": worker.transfer_outgoing_bytes_total,
        }

    @property
    def store(self) -> Store:
        """Of artifacts that are built on the way, and checkpoints of trainings, each under its key."""
        assert self.scratch is not None, "set up"
        return Store(self.shared or self.scratch)

    def remember(self, tag: str, found: Any) -> None:
        """What tasks of this tag need: the cells of a suite, or a data set, as they are on this machine."""
        self.remembered[tag] = found
        while len(self.remembered) > _MOST_REMEMBERED:
            self.remembered.pop(next(iter(self.remembered)))

    def compute_on(self, threads: int | None) -> int:
        """Have this thread, and those that it starts, compute on so many processors; returns how many there are."""
        chosen = self.processors[:threads] if threads else self.processors
        if chosen and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, chosen)
        return len(chosen) or threads or 1


def workplace_of(worker: Worker) -> Workplace:
    """The workplace of the worker that a task runs on."""
    found = worker.plugins[NAME]
    assert isinstance(found, Workplace)
    return found
