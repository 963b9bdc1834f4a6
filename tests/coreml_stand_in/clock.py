"""Time that passes only when something is said to take it."""


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, nanoseconds: float) -> None:
        self.now_ns += round(nanoseconds)

    def sleep(self, seconds: float) -> None:
        self.advance(seconds * 1e9)
