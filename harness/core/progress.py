"""Progress on standard error: bars with a time estimate on a terminal, elsewhere a plain line a minute.

Rich is imported where something is told: many a command tells nothing, and is done sooner than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coreml_prune_bench.core.escaping import message

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

_A_LINE_SECONDS = 60.0
_LEAST_SPENT_SECONDS = 5.0
"""Before it nobody knows how long the rest takes: a first step that comes at once would mean none at all."""

Watch = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


def say(text: str) -> None:
    """One line on standard error."""
    from rich.console import Console

    _print(Console(stderr=True), text)


def warn(line: str) -> None:
    """Tell, on standard error, what a reader has to know and can go on without."""
    say(f"warning: {line}")


class Reporter:
    """What long work tells the person who waits for it. watch: told of every step, and may raise to end the work."""

    def __init__(self, watch: Watch = lambda description, done, total: None) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._watch = watch

    def say(self, line: str) -> None:
        """One line that stays."""
        _print(self._console, line)

    def warn(self, line: str) -> None:
        """As `warn`, between bars: told where nothing else is."""
        _print(self._console, f"warning: {line}")

    @contextmanager
    def steps(self, title: str, total: int) -> Iterator[Steps]:
        """Progress over `total` steps of which each has its own bar."""
        from coreml_prune_bench.core.bar_columns import columns_of_steps

        with self.bars(*columns_of_steps(self._console)) as bars:
            yield Steps(bars, title, total, self._watch, None if self._console.is_terminal else self.say)

    def bars(self, *columns: ProgressColumn) -> Progress:
        """Bars between which lines can be said. Off a terminal they would fill a log with their every state."""
        from rich.progress import Progress

        return Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)


class Steps:
    """An outer bar, and an inner one for the step in hand. say: told a line a minute, where there are no bars."""

    def __init__(
        self, bars: Progress, title: str, total: int, watch: Watch, say: Callable[[str], None] | None = None
    ) -> None:
        self._bars = bars
        self._watch = watch
        self._say = say
        self._title, self._total, self._done = title, total, 0
        self._outer = bars.add_task(message(title), total=total)
        self._inner = bars.add_task("", total=None, visible=False)
        self._description, self._of = "", 0
        self._told = self._started = time.monotonic()

    def update(self, description: str, done: int, total: int) -> None:
        """The step in hand is `done` of `total` through what `description` says."""
        if (description, total) != (self._description, self._of):
            self._description, self._of = description, total
            self._started = time.monotonic()
            self._bars.reset(
                self._inner, description=f"  {message(description)}", visible=True
            )  # so that time starts anew
        self._bars.update(self._inner, completed=done, total=total)
        self._tell(done, total)
        self._watch(description, done, total)

    def within(self, description: str) -> Callable[[int, int], None]:
        """`update` with a fixed description."""
        return lambda done, total: self.update(description, done, total)

    def advance(self) -> None:
        """One step is done."""
        self._description = ""
        self._done += 1
        self._bars.update(self._inner, visible=False)
        self._bars.advance(self._outer)

    def _tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._say is None or now - self._told < _A_LINE_SECONDS:
            return
        self._told = now
        outer = f"{self._title} {self._done}/{self._total}, " if self._total > 1 else ""
        spent = now - self._started
        left = spent / done * (total - done) if done and spent >= _LEAST_SPENT_SECONDS else None
        rest = "" if left is None else f", about {_duration(left)} left of it"
        self._say(f"{outer}{self._description} {done:,}/{total:,}{rest}")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _print(console: Console, line: str) -> None:
    console.print(message(line), markup=False, highlight=False, soft_wrap=True)
