"""Whether other programs keep the processors busy that a run is about to use; said once, before it."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from coreml_prune_bench.core.waiting import is_chosen
from coreml_prune_bench.latency.mac import read_busy_processes
from coreml_prune_bench.models.processors import processors

_STAT = Path("/proc/stat")
_WATCHED_S = 0.25
_BUSY = 0.7
"""Processors: a parallel loop waits for its slowest thread, so that one busy processor of many slows down all."""


def tell_if_busy(say: Callable[[str], None]) -> None:
    """A line where other programs keep processors busy that this process may use. Looking takes a quarter second."""
    busy = busy_processors()
    if busy < _BUSY:
        return
    line = f"other programs keep {busy:.1f} of {len(processors())} processors busy: this takes longer than beside none"
    if not is_chosen():
        line += (
            ", and training far longer, because torch was imported before coreml_prune_bench: import "
            "coreml_prune_bench first, or set OMP_WAIT_POLICY=PASSIVE"
        )
    say(line)


def busy_processors() -> float:
    """How many of the processors of this process other programs, or other virtual machines, keep busy now."""
    if not _STAT.is_file():  # not Linux
        return sum(process.cpu_percent for process in read_busy_processes()) / 100
    before, own_s, since_s = _busy_s(), time.process_time(), time.monotonic()
    time.sleep(_WATCHED_S)
    busy_s = _busy_s() - before - (time.process_time() - own_s)
    return max(0.0, busy_s / (time.monotonic() - since_s))


def _busy_s() -> float:
    """Of all processors that this process may use together, since the machine was started."""
    mine, ticks = processors(), 0
    for number, text in re.findall(r"^cpu(\d+) (.+)$", _STAT.read_text(), re.MULTILINE):
        if int(number) in mine:
            user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen, *_ = map(int, text.split())
            ticks += user + nice + system + interrupts + soft_interrupts + stolen
    return ticks / os.sysconf("SC_CLK_TCK")
