"""Progress on standard error: bars with a time estimate on a terminal, elsewhere a plain line a minute.

Rich is imported where something is told: many a command tells nothing, and is done sooner than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coreml_prune_bench.core.escaping import message

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID

_A_LINE_SECONDS = 60.0
_LEAST_SPENT_SECONDS = 5.0
"""Before it nobody knows how long the rest takes: a first step that comes at once would mean none at all."""
_MOST_AT_ONCE = 64
"""Steps of which it is known how far they are, such as those of the workers of a cluster."""

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


@dataclass
class _Step:
    """A step that was begun: its bar, when and where its count began, and how far it is."""

    bar: TaskID
    began_s: float
    began: int
    done: int


class Steps:
    """An outer bar, and an inner one for the step in hand; where several go on at once, for the one last heard of.

    say: told a line a minute, where there are no bars.
    """

    def __init__(
        self, bars: Progress, title: str, total: int, watch: Watch, say: Callable[[str], None] | None = None
    ) -> None:
        self._bars = bars
        self._watch = watch
        self._say = say
        self._title, self._total, self._done = title, total, 0
        self._outer = bars.add_task(message(title), total=total)
        self._begun: dict[tuple[str, int], _Step] = {}
        self._shown: _Step | None = None
        self._told_s = time.monotonic()

    def update(self, description: str, done: int, total: int) -> None:
        """A step is `done` of `total` through what `description` says."""
        step = self._step(description, done, total)
        if step is not self._shown:
            self._hide()
            self._shown = step
        step.done = done
        self._bars.update(step.bar, completed=done, visible=True)
        self._tell(step, description, total)
        self._watch(description, done, total)

    def _step(self, description: str, done: int, total: int) -> _Step:
        """The one that counts so; begun now if it is new, or has come to its beginning again."""
        found = self._begun.pop((description, total), None)
        if found is not None and done < found.done:
            self._bars.remove_task(found.bar)
            found = None
        if found is None:
            bar = self._bars.add_task(f"  {message(description)}", total=total, completed=done, visible=False)
            found = _Step(bar, time.monotonic(), done, done)
        self._begun[description, total] = found  # the last one
        if len(self._begun) > _MOST_AT_ONCE:
            self._bars.remove_task(self._begun.pop(next(iter(self._begun))).bar)
        return found

    def _hide(self) -> None:
        if self._shown is not None and self._shown.bar in self._bars.task_ids:
            self._bars.update(self._shown.bar, visible=False)
        self._shown = None

    def within(self, description: str) -> Callable[[int, int], None]:
        """`update` with a fixed description."""
        return lambda done, total: self.update(description, done, total)

    def advance(self) -> None:
        """One step is done."""
        self._done += 1
        self._hide()
        self._bars.advance(self._outer)

    def _tell(self, step: _Step, description: str, total: int) -> None:
        now_s = time.monotonic()
        if self._say is None or now_s - self._told_s < _A_LINE_SECONDS:
            return
        self._told_s = now_s
        outer = f"{self._title} {self._done}/{self._total}, " if self._total > 1 else ""
        spent_s, made = now_s - step.began_s, step.done - step.began  # one that goes on from a checkpoint began there
        left = spent_s / made * (total - step.done) if made and spent_s >= _LEAST_SPENT_SECONDS else None
        rest = "" if left is None else f", about {_duration(left)} left of it"
        self._say(f"{outer}{description} {step.done:,}/{total:,}{rest}")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _print(console: Console, line: str) -> None:
    console.print(message(line), markup=False, highlight=False, soft_wrap=True)
