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
    # A worker of `local:N` that is started anew on a busy machine takes longer than Dask waits before it gives it up.
    "distributed.deploy.lost-worker-timeout": "1h",
    # A worker that measures or computes is left alone: as Dask has it, it wakes up 50 and 100 times a second.
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.profile.enabled": False,
    # Artifacts that are here already go with their task.
    "distributed.scheduler.worker-saturation": 1.0,
}


@contextmanager
def dask_settings() -> Iterator[None]:
    """Inside, Dask's settings are ours and it is quiet: what matters is told by this program."""
    with dask.config.set(_SETTINGS), silence_logging_cmgr(logging.CRITICAL):
        yield
