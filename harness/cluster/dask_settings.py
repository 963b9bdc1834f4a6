"""How Dask is set up here, where that is not as usual."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed.utils import silence_logging_cmgr

ALLOWED_FAILURES = 2
"""Deaths of workers that a task may cost; at the next it has failed."""

_SETTINGS = {
    "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    # Workers start processes of their own: what predicts is watched from outside.
    "distributed.worker.daemon": False,
    # Cells compute for hours; that one is slow to answer while a library holds Python's lock says nothing.
    "distributed.admin.tick.limit": "1h",
    # Packages travel with their tasks, and are large.
    "distributed.admin.large-graph-warning-threshold": "1TB",
    # A worker of `local:N` that is started anew on a busy machine takes longer than Dask waits before it gives it up.
    "distributed.deploy.lost-worker-timeout": "1h",
    # A worker that measures or computes is left alone: as Dask has it, it wakes up 50 and 100 times a second, and looks
    # at the system's processors, disks and memory between twice and ten times a second.
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    # Dask gives a cell to the worker that has its package, and then moves it to one that has nothing to do. It does so
    # where that is worth the way of the package, and takes a cell for half a second's work until one has ended.
    "distributed.scheduler.unknown-task-duration": "10m",
    "distributed.scheduler.work-stealing-interval": "50ms",
    # What a worker was sent it keeps for its next cell of that network, until no cell needs it.
    "distributed.scheduler.active-memory-manager.start": False,
}


@contextmanager
def dask_settings() -> Iterator[None]:
    """Inside, Dask's settings are ours and it is quiet: what matters is told by this program."""
    with dask.config.set(_SETTINGS), silence_logging_cmgr(logging.CRITICAL):
        yield
