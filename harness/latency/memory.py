"""How much memory this process holds, and the most that it ever held.

On macOS the physical footprint, which is what the system ends apps for and Activity Monitor shows: `proc_pid_rusage` of
<libproc.h> fills `rusage_info_v4` of <sys/resource.h>. Elsewhere what is resident, of /proc.
"""

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency import libsystem

_RUSAGE_INFO_V4 = 4
_FIELDS = 37
"""64-bit numbers of rusage_info_v4: the 16 bytes of a UUID, then 35 numbers."""
_FOOTPRINT, _LIFETIME_MAXIMUM = 9, 30
"""The places of ri_phys_footprint and ri_lifetime_max_phys_footprint among them."""


@dataclass(frozen=True)
class Held:
    """In bytes, at this moment and at most so far."""

    now: int
    peak: int


def held() -> Held:
    """Of this process. Raises BenchError where the system does not say."""
    if sys.platform == "darwin":
        return _footprint()
    try:
        status = Path("/proc/self/status").read_text()
    except OSError as error:
        raise BenchError(f"this system does not say what a process holds ({error.strerror})") from error
    kibibytes = {name: int(value) for name, value in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE)}
    return Held(1024 * kibibytes["VmRSS"], 1024 * kibibytes["VmHWM"])


def _footprint() -> Held:
    told = (ctypes.c_uint64 * _FIELDS)()
    if libsystem.library().proc_pid_rusage(os.getpid(), _RUSAGE_INFO_V4, ctypes.byref(told)):
        raise BenchError("this system does not say what a process holds")
    return Held(told[_FOOTPRINT], told[_LIFETIME_MAXIMUM])
