"""Time that passes when something is said to take it: at once, or really."""

import time

# The real ones: a process may have a clock in their place.
_NOW, _WALL, _SLEEP = time.perf_counter_ns, time.time_ns, time.sleep

_SPIN_NS = 2_000_000
"""How long before its end a wait looks at the clock: systems sleep longer than they are asked to."""


class Clock:
    """Nanoseconds. While a machine sleeps `now_ns` stands still, as `perf_counter` on a Mac; `wall_ns` does not."""

    def __init__(self) -> None:
        self._now_ns = 1_000_000_000
        self._wall_ns = 1_800_000_000_000_000_000

    @property
    def now_ns(self) -> int:
        """Since some moment."""
        return self._now_ns

    @property
    def wall_ns(self) -> int:
        """The time of day."""
        return self._wall_ns

    def __call__(self) -> int:
        return self.now_ns

    def wall(self) -> int:
        """The time of day."""
        return self.wall_ns

    def advance(self, nanoseconds: float) -> None:
        """Something took so long."""
        self._now_ns += round(nanoseconds)
        self._wall_ns += round(nanoseconds)

    def sleep(self, seconds: float) -> None:
        """A program waits."""
        self.advance(seconds * 1e9)

    def fall_asleep(self, seconds: float) -> None:
        """The machine sleeps: the time of day alone goes on."""
        self._wall_ns += round(seconds * 1e9)


class RealClock(Clock):
    """This machine's own clock: what is said to take so long does take it."""

    def __init__(self) -> None:
        self._slept_ns = 0

    @property
    def now_ns(self) -> int:
        """Since some moment."""
        return _NOW()

    @property
    def wall_ns(self) -> int:
        """The time of day, with what the machine is said to have slept."""
        return _WALL() + self._slept_ns

    def advance(self, nanoseconds: float) -> None:
        """Wait so long, to some microseconds."""
        until = _NOW() + round(nanoseconds)
        while (left := until - _NOW()) > 0:
            if left > _SPIN_NS:
                _SLEEP((left - _SPIN_NS) / 1e9)

    def sleep(self, seconds: float) -> None:
        """A program waits."""
        _SLEEP(seconds)

    def fall_asleep(self, seconds: float) -> None:
        """The machine sleeps: the time of day alone goes on."""
        self._slept_ns += round(seconds * 1e9)
