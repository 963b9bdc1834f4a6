"""Tasks that have ended, and what they returned.

That is fetched in a thread of Dask's: a worker may die between the end of a task and that, and then the task is done
again. It may take a worker that has to be let in first, by who waits here.
"""

from asyncio import CancelledError
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Future


@dataclass(frozen=True)
class Landed:
    """A task that has ended. result: what it returned, if that was fetched. error: what it raised."""

    future: Future
    result: Any = None
    error: BaseException | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the scheduler has gone, and the task with it."""
        return isinstance(self.error, CancelledError) or self.future.status in ("cancelled", "lost")


class Landing:
    """Tasks are watched, and come out in the order in which they end."""

    def __init__(self) -> None:
        self._landed: SimpleQueue[Landed] = SimpleQueue()

    def watch(self, future: Future, *, fetch: bool = True) -> None:
        """fetch: what it returns, too."""
        future.add_done_callback(self._fetch if fetch else lambda future: self._landed.put(Landed(future)))

    def next(self, timeout_s: float) -> Landed | None:
        """The next one that has ended; None where none has within that time."""
        try:
            return self._landed.get(timeout=timeout_s)
        except Empty:
            return None

    def _fetch(self, future: Future) -> None:
        try:
            landed = Landed(future, future.result())
        except (Exception, CancelledError) as error:
            landed = Landed(future, error=error)
        self._landed.put(landed)
