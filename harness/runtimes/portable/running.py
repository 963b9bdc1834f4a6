"""How a session's runs are waited for: one at a time or several side by side, and so that Ctrl-C ends them.

Python looks for signals in the main thread alone, and there not before a call of a library has returned. So what may
take long runs in another thread, and what is known to be brief does not: the way there and back is a good part of a
small network's prediction.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

Feeds = Mapping[str, np.ndarray]
Results = list[np.ndarray]

_BRIEF_S = 0.1
"""How long a signal may wait: nobody notices."""
_GRACE_S = 5.0
"""What one node may take to end. One that takes longer ends with the process."""


class Running:
    """A session that runs, `side_by_side` of several samples at once, each in a thread of its own.

    time_varies: whether what it takes depends on the values that it is given, as a loop's time does.
    `inputs` has the shape of each of its inputs, a name for a size that may be any.
    """

    def __init__(self, session: Any, *, side_by_side: int = 1, time_varies: bool = False) -> None:
        self._session = session
        self.inputs = {one.name: tuple(one.shape) for one in session.get_inputs()}
        self.side_by_side = side_by_side
        self._time_varies = time_varies
        self._brief_bytes = -1  # inputs of so many have taken less than _BRIEF_S
        self._threads: _Threads | None = None

    def run(self, names: Sequence[str], feeds: Feeds) -> Results:
        """What the session computes. A signal, such as that of Ctrl-C, ends it between two nodes."""
        given = sum(array.nbytes for array in feeds.values())
        started = time.monotonic()
        if given <= self._brief_bytes or threading.current_thread() is not threading.main_thread():
            results = list(self._session.run(names, feeds))
        else:
            (results,) = self._in_threads(names, [feeds])
        brief = not self._time_varies and time.monotonic() - started < _BRIEF_S
        self._brief_bytes = max(self._brief_bytes, given) if brief else min(self._brief_bytes, given - 1)
        return results

    def run_all(self, names: Sequence[str], parts: Sequence[Feeds]) -> list[Results]:
        """What `run` gives of each part."""
        if self.side_by_side == 1 or len(parts) == 1:
            return [self.run(names, part) for part in parts]
        return self._in_threads(names, parts)

    def _in_threads(self, names: Sequence[str], parts: Sequence[Feeds]) -> list[Results]:
        if self._threads is None:
            self._threads = _Threads(self.side_by_side)
            weakref.finalize(self, self._threads.end)
        options = onnxruntime.RunOptions()
        waiting = [self._threads.start(self._session, names, part, options) for part in parts]
        try:
            return [outcome.result() for outcome in waiting]
        except BaseException:
            options.terminate = True
            for outcome in waiting:
                outcome.cancel()
            if wait(waiting, _GRACE_S).not_done:
                self._threads = None  # nobody waits for these again
            raise
        finally:
            del waiting  # what is raised would keep it, and the pool, until garbage is collected


class _Threads:
    """Threads that run sessions. They stay, since a new one is slow at first, and end no later than the process."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._work: queue.SimpleQueue[tuple[Future[Results], Any, tuple[Any, ...]] | None] = queue.SimpleQueue()
        for _ in range(count):
            threading.Thread(target=_work, args=(self._work,), daemon=True).start()

    def start(self, session: Any, *arguments: Any) -> Future[Results]:
        outcome: Future[Results] = Future()
        self._work.put((outcome, session, arguments))
        return outcome

    def end(self) -> None:
        for _ in range(self._count):
            self._work.put(None)


def _work(given: queue.SimpleQueue[Any]) -> None:
    while (task := given.get()) is not None:
        _compute(*task)
        del task  # the session must not live until the next one


def _compute(outcome: Future[Results], session: Any, arguments: tuple[Any, ...]) -> None:
    if outcome.set_running_or_notify_cancel():
        try:
            outcome.set_result(list(session.run(*arguments)))
        except BaseException as error:  # raised where the result is waited for
            outcome.set_exception(error)
