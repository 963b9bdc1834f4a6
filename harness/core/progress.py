"""Progress on standard error: bars with a time estimate on a terminal, a plain line a step elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from coreml_prune_bench.core.escaping import message

Watch = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


def say(text: str) -> None:
    """One line on standard error."""
    _print(Console(stderr=True), text)


def warn(line: str) -> None:
    """Tell, on standard error, what a reader has to know and can go on without."""
    say(f"warning: {line}")


class Reporter:
    """What long work tells the person who waits for it. watch: told of every step, and may raise to end the work."""

    def __init__(self, watch: Watch = lambda description, done, total: None) -> None:
        self._console = Console(stderr=True)
        self._watch = watch

    def say(self, line: str) -> None:
        """One line that stays."""
        _print(self._console, line)

    def warn(self, line: str) -> None:
        """As `warn`, between bars: told where nothing else is."""
        _print(self._console, f"warning: {line}")

    @contextmanager
    def steps(self, title: str, total: int) -> Iterator["Steps"]:
        """Progress over `total` steps of which each has its own bar."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _SpeedColumn(),
            TimeRemainingColumn(),
        )
        with self.bars(*columns) as bars:
            yield Steps(bars, title, total, self._watch)

    def bars(self, *columns: ProgressColumn) -> Progress:
        """Bars between which lines can be said. Off a terminal they would fill a log with their every state."""
        return Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)


class _SpeedColumn(ProgressColumn):
    """Steps a second, where they are not minutes apart."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed and task.speed >= 0.05 else "")


class Steps:
    """An outer bar, and an inner one for the step in hand."""

    def __init__(self, bars: Progress, title: str, total: int, watch: Watch) -> None:
        self._bars = bars
        self._watch = watch
        self._outer = bars.add_task(message(title), total=total)
        self._inner = bars.add_task("", total=None, visible=False)
        self._description = ""

    def update(self, description: str, done: int, total: int) -> None:
        """The step in hand is `done` of `total` through what `description` says."""
        if description != self._description:
            self._description = description
            self._bars.reset(
                self._inner, description=f"  {message(description)}", visible=True
            )  # so that time starts anew
        self._bars.update(self._inner, completed=done, total=total)
        self._watch(description, done, total)

    def within(self, description: str) -> Callable[[int, int], None]:
        """`update` with a fixed description."""
        return lambda done, total: self.update(description, done, total)

    def advance(self) -> None:
        """One step is done."""
        self._description = ""
        self._bars.update(self._inner, visible=False)
        self._bars.advance(self._outer)


def _print(console: Console, line: str) -> None:
    console.print(message(line), markup=False, highlight=False, soft_wrap=True)
