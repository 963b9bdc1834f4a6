"""Time that passes only when something is said to take it."""


class Clock:
    """Nanoseconds. While a machine sleeps `now_ns` stands still, as `perf_counter` on a Mac; `wall_ns` does not."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.wall_ns = 1_800_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def wall(self) -> int:
        """The time of day."""
        return self.wall_ns

    def advance(self, nanoseconds: float) -> None:
        """Something took so long."""
        self.now_ns += round(nanoseconds)
        self.wall_ns += round(nanoseconds)

    def sleep(self, seconds: float) -> None:
        """A program waits."""
        self.advance(seconds * 1e9)

    def fall_asleep(self, seconds: float) -> None:
        """The machine sleeps: the time of day alone goes on."""
        self.wall_ns += round(seconds * 1e9)
