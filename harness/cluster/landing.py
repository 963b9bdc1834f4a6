"""Tasks that have ended, and what they returned.

That is fetched beside whoever waits here: a worker may die between the end of a task and that, and then the task is
done again. It may take a worker that has to be let in first, by who waits.
"""

import asyncio
from concurrent.futures import CancelledError
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Future

_AT_ONCE = 8
"""Results that are fetched, or wait here: packages may be large."""


@dataclass(frozen=True)
class Landed:
    """A task that has ended. result: what it returned, if that was fetched. error: what it raised."""

    future: Future
    result: Any = None
    error: BaseException | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the scheduler has gone, and the task with it."""
        return isinstance(self.error, CancelledError)


class Landing:
    """Tasks are watched, and come out as they end and what they returned is here."""

    def __init__(self) -> None:
        self._landed: SimpleQueue[tuple[Landed, bool]] = SimpleQueue()
        self._room = asyncio.Semaphore(_AT_ONCE)

    def watch(self, future: Future, *, fetch: bool = True) -> None:
        """fetch: what it returns, too."""
        if fetch:
            future.add_done_callback(lambda ended: ended.client.loop.add_callback(self._fetch, ended))
        else:
            future.add_done_callback(lambda ended: self._landed.put((Landed(ended), False)))

    def next(self, timeout_s: float) -> Landed | None:
        """The next one; None where none has come within that time."""
        try:
            landed, took_room = self._landed.get(timeout=timeout_s)
        except Empty:
            return None
        if took_room:
            landed.future.client.loop.add_callback(self._room.release)
        return landed

    async def _fetch(self, future: Future) -> None:
        await self._room.acquire()
        try:
            landed = Landed(future, await future)
        except (Exception, CancelledError) as error:
            landed = Landed(future, error=error)
        self._landed.put((landed, True))
