"""A task at work in a worker: what it tells its client, and what ends it.

It tells by events of Dask, under the topic of its run. What is the machine's trouble and not the task's (a full disk,
no memory, a time limit) ends the worker's process: Dask starts that anew, and gives the task to another worker, as it
does when a worker dies by itself.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from distributed import Worker, get_worker
from rich.progress import Progress, ProgressColumn

from coreml_prune_bench.cluster.workplace import Workplace, workplace_of
from coreml_prune_bench.core.errors import BenchError, told
from coreml_prune_bench.core.progress import Reporter, Steps

_EVENT_SECONDS = 1.0
"""Between two events of progress."""
_LAST_WORDS_SECONDS = 1.0
"""For an event to leave a process that ends."""


class Teller(Reporter):
    """Tells the client in place of a terminal. task: its key in Dask. name: for people."""

    def __init__(self, worker: Worker, topic: str, task: str, name: str) -> None:
        super().__init__(self._watched)
        self._worker, self._topic, self._about = worker, topic, {"task": task, "name": name}
        self._place = workplace_of(worker)
        self._told_s = 0.0

    def event(self, kind: str, **content: Any) -> None:
        self._worker.log_event(self._topic, {"kind": kind, **self._about, "machine": self._place.machine, **content})

    def say(self, line: str) -> None:
        self.event("line", line=line)

    def warn(self, line: str) -> None:
        self.event("line", line=f"warning: {line}")

    def bars(self, *columns: ProgressColumn) -> Progress:
        return Progress(*columns, disable=True)

    @contextmanager
    def steps(self, title: str, total: int) -> Iterator[Steps]:
        with self.bars() as bars:
            yield Steps(bars, title, total, self._watched)

    def _watched(self, description: str, done: int, total: int) -> None:
        self._place.doing = f"{description} {done}/{total}"
        if time.monotonic() - self._told_s >= _EVENT_SECONDS:
            self._told_s = time.monotonic()
            self.event("step", description=description, done=done, total=total)


@contextmanager
def at_work(topic: str, task: str, name: str, limit_s: float | None) -> Iterator[tuple[Workplace, Teller]]:
    """Around all that a task does.

    Raises BenchError with the machine's name for what the user can mend; OSError, MemoryError and the end of `limit_s`
    end this process.
    """
    worker = get_worker()
    teller, place = Teller(worker, topic, task, name), workplace_of(worker)

    def too_long() -> None:
        _end(teller, f"not done after {limit_s:g} s (--task-time-limit)")

    timer = threading.Timer(min(limit_s, threading.TIMEOUT_MAX), too_long) if limit_s else None
    teller.event("start")
    place.doing = name
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield place, teller
    except BenchError as error:
        raise type(error)(f"{place.machine}: {error}") from None
    except (OSError, MemoryError) as error:
        _end(teller, told(error) or str(error))
    finally:
        place.doing = ""
        if timer:
            timer.cancel()
        teller.event("done")


def _end(teller: Teller, why: str) -> NoReturn:
    teller.event("end", why=why.removesuffix("; what was finished is kept"))
    time.sleep(_LAST_WORDS_SECONDS)
    os._exit(1)
