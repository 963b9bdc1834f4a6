"""The processors that this process may use: fewer than the machine has under taskset, or in a cpuset of a container."""

import os
import sys
from pathlib import Path

_DESCRIBED = Path("/proc/cpuinfo")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def processors() -> frozenset[int]:
    """Their numbers, as the operating system counts them."""
    if sys.platform == "linux":
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cores() -> int:
    """How many of them share no core: two threads of one core calculate no faster than one."""
    siblings = {number: Path(_SIBLINGS.format(number)) for number in processors()}
    return len({path.read_text() if path.is_file() else number for number, path in siblings.items()})


def multiply_bfloat16() -> bool:
    """Whether they have units that multiply matrices of bfloat16 (Intel's AMX), as Linux says; elsewhere: no."""
    if not _DESCRIBED.is_file():
        return False
    flags = (line for line in _DESCRIBED.read_text().splitlines() if line.startswith("flags"))
    return "amx_bf16" in next(flags, "").split()
