"""A limit of time for work that is done step by step: it ends what would take longer, as soon as that can be told."""

import math
import re
import time
from datetime import timedelta

from coreml_prune_bench.core.errors import BenchError

_UNITS_S = {"s": 1, "m": 60, "h": 3600}
_MOST_S = 10 * 365 * 86_400

# When a pace says how long all will take. Steps differ, so that a little too long is tried all the same.
_LEAST_STEPS = 3
_LEAST_S = 5.0
_SLACK = 1.25


class OutOfTimeError(BenchError):
    """What was being done would end after the budget. Work that keeps checkpoints goes on there the next time."""


class Budget:
    """So many seconds from now on. reserve_s: of them, what is kept for what comes after the work that is watched."""

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds
        self.reserve_s = 0.0
        self._work: tuple[str, int] | None = None
        self._first, self._last = (0, 0.0), 0

    @property
    def left_s(self) -> float:
        """Without the reserve; negative where that is touched."""
        return self._end_s - self.reserve_s - time.monotonic()

    def lift(self) -> None:
        """Let what comes now take as long as it takes."""
        self._end_s = math.inf

    def watch(self, work: str, done: int, total: int) -> None:
        """Told of each step of `work`. Raises OutOfTimeError once the time is up, or will be at this pace."""
        now_s = time.monotonic()
        if (work, total) != self._work or done < self._last:  # phases may share a name
            self._work, self._first = (work, total), (done, now_s)
        self._last = done
        first, since_s = self._first  # what was done before is none of this pace: work may have been resumed
        steps, spent_s = done - first, now_s - since_s
        needed_s = spent_s / steps * (total - done) if steps >= _LEAST_STEPS and spent_s >= _LEAST_S else 0.0
        if self.left_s < 0:
            raise OutOfTimeError(f"{work}: the time is up")
        if needed_s > _SLACK * self.left_s:
            raise OutOfTimeError(f"{work}: {duration(needed_s)} more needed, {duration(self.left_s)} left")


def read_duration(text: str) -> float:
    """Seconds of "90s", "30m" or "1.5h". Raises BenchError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or float(found[1]) == 0:
        raise BenchError(f"{text!r} is no time: expected a number with s, m or h, such as 90s, 30m or 1.5h")
    seconds = float(found[1]) * _UNITS_S[found[2]]
    if seconds > _MOST_S:
        raise BenchError(f"{text!r} is longer than ten years")
    return seconds


def duration(seconds: float) -> str:
    """Such as "0:05:10"."""
    return str(timedelta(seconds=max(0, round(seconds))))
