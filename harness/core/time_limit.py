"""A call in a process of its own that is ended when its time is over.

A thread cannot be ended while it is in a library, and what a foreign package asks a library for may take for ever.
"""

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from coreml_prune_bench.core.errors import BenchError

T = TypeVar("T")

_AT_ONCE_S = 86_400.0
"""The system counts milliseconds, and 24 days of them at most."""


def within(seconds: float | None, function: Callable[..., T], /, *arguments: Any, **options: Any) -> T:
    """What `function`, one of a module, returns or raises for what is given; all of it has to be picklable.

    seconds: of the process, its imports included. None: no limit, and no process.
    Raises BenchError where the time is over, and where the process is ended by something else.
    """
    if seconds is None:
        return function(*arguments, **options)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(theirs, function, arguments, options))
    process.start()
    theirs.close()
    try:
        if not answers(ours, seconds):
            raise BenchError(f"not done after {seconds:g} s (--time-limit), and ended")
        result, error = ours.recv()
    except EOFError:
        process.join()
        raise BenchError(f"the process that computes has ended by itself (exit code {process.exitcode})") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if error is not None:
        raise error
    return result


def answers(connection: Connection, seconds: float) -> bool:
    """Whether something comes within so many seconds, any number of them."""
    while seconds > _AT_ONCE_S:
        if connection.poll(_AT_ONCE_S):
            return True
        seconds -= _AT_ONCE_S
    return connection.poll(seconds)


def _call(connection: Connection, function: Callable[..., Any], arguments: tuple, options: dict[str, Any]) -> None:
    end_with_parent()
    try:
        connection.send((function(*arguments, **options), None))
    except KeyboardInterrupt:  # told to the whole group; the process that waits ends this one
        pass
    except BenchError as error:
        connection.send((None, error))
    except Exception as error:  # a bug keeps its traceback, though it cannot be sent
        error.add_note(traceback.format_exc())
        connection.send((None, error))


def end_with_parent() -> None:
    """However the process ends that started this one, nothing is left that computes."""
    threading.Thread(target=_wait_for_its_end, daemon=True).start()


def _wait_for_its_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
