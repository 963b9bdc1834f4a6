"""The class of service of a thread, which decides on which cores macOS runs it, and how fast.

`pthread_set_qos_class_self_np` of <pthread/qos.h>; the numbers are those of <sys/qos.h>.
"""

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency import libsystem

CLASSES = {"user-interactive": 0x21, "user-initiated": 0x19, "default": 0x15, "utility": 0x11, "background": 0x09}
"""By the names that Apple gives them."""


def current() -> str | None:
    """This thread's class; None where the system has none."""
    try:
        number = libsystem.library().qos_class_self()
    except AttributeError:
        return None
    return {value: name for name, value in CLASSES.items()}.get(number, f"0x{number:02x}")


def become(name: str) -> None:
    """Run this thread in another class. Raises BenchError where the system refuses, or has none."""
    try:
        code = libsystem.library().pthread_set_qos_class_self_np(CLASSES[name], 0)
    except AttributeError as error:
        raise BenchError("this operating system has no classes of service") from error
    if code:
        raise BenchError(f"the system refuses the class of service {name!r} (error {code})")
