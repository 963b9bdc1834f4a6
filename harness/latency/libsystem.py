"""macOS's system library, of which every process has it loaded."""

import ctypes
from typing import Any


def library() -> Any:
    """What this process has loaded already, libSystem among it."""
    return ctypes.CDLL(None)
