"""How long a download may take in all: a server that sends a byte now and then must not keep a command for ever.

Libraries limit the wait for the next byte, if anything. A total has to grow with the size, so it is a pace.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

PATIENCE_S = 60.0
LEAST_BYTES_PER_S = 50_000.0
"""A slow mobile connection still has twice of it."""

_USUAL_BYTES = 200_000_000
"""Of weights whose size nobody says."""

_T = TypeVar("_T")


class TooSlowError(OSError):
    """What was downloaded has not come in the time that its size allows."""


def limit_s(size_bytes: int | None) -> float:
    """Seconds that a download of so many bytes may take; None: not known."""
    return PATIENCE_S + (_USUAL_BYTES if size_bytes is None else size_bytes) / LEAST_BYTES_PER_S


def too_slow(seconds: float) -> TooSlowError:
    """The error for a download that was given up after its limit."""
    return TooSlowError(f"not finished after {seconds:,.0f} s, less than {LEAST_BYTES_PER_S / 1000:g} kB a second")


def bytes_of(weights: Any) -> int | None:
    """The size of a file of torchvision's weights, an enumeration's member; None where it does not say."""
    megabytes = getattr(weights, "meta", {}).get("_file_size")
    return None if megabytes is None else int(1e6 * megabytes)


def limited(download: Callable[[], _T], size_bytes: int | None = None) -> _T:
    """What `download` returns or raises. Raises TooSlowError where it takes longer than its size allows.

    It runs in a thread that nobody can end; left alone, it does not keep the program from ending.
    """
    found: list[_T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(download())
        except BaseException as error:  # for the thread that waits, whatever it is
            failed.append(error)

    thread = threading.Thread(target=work, name="download", daemon=True)
    thread.start()
    seconds = limit_s(size_bytes)
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise too_slow(seconds)
    return found[0]
