"""Holding a Mac awake while something is measured."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def kept_awake(system: str | None = None) -> Iterator[None]:
    """`caffeinate` for the length of the block, on a Mac: neither system, disk nor display sleep.

    Where it cannot be started nothing is held, and what a sleep does to a measurement is seen by the clocks.
    """
    if (system or sys.platform) != "darwin":
        yield
        return
    process = None
    with suppress(OSError):
        process = subprocess.Popen(
            ["caffeinate", "-dimsu", "-w", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        yield
    finally:
        if process is not None:
            process.terminate()
            process.wait()
