"""What a network's activations are written to: memory that stays with the process between two of them.

glibc gives a block of more than a few MiB back at once, and maps a new one for the next: the kernel then clears it page
by page, which takes a MobileNetV2 that runs without training as long as its arithmetic.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of mallopt(3)."""

_MIB = 2**20


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, memory that is freed is used again and not given back to the system; afterwards it is.

    Of the whole process, and with glibc alone: elsewhere nothing changes.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        # Where glibc's own thresholds end up once large blocks have been freed; it moves them no more after mallopt.
        libc.mallopt(_MMAP_MAX, 65536)
        libc.mallopt(_MMAP_THRESHOLD, 32 * _MIB)
        libc.mallopt(_TRIM_THRESHOLD, 64 * _MIB)
        libc.malloc_trim(0)
