"""The columns of bars over steps: what is done, how much of it, how fast, and the time left."""

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, SpinnerColumn, Task, TimeRemainingColumn
from rich.text import Text

_BAR = 16
"""Columns of a bar."""
_BESIDE = 2 + 1 + _BAR + 1 + 15 + 1 + 9 + 1 + 6
"""Columns that spinner, bar, count (such as 50,000/50,000), speed and time left take."""
_LEAST = 12


def columns_of_steps(console: Console) -> tuple[ProgressColumn, ...]:
    """For bars on this terminal."""
    return (
        SpinnerColumn(),
        _DescriptionColumn(console),
        BarColumn(_BAR),
        MofNCompleteColumn(),
        _SpeedColumn(),
        TimeRemainingColumn(compact=True),
    )


class _DescriptionColumn(ProgressColumn):
    """What is being done, shortened in its middle: count, bar and time left keep their room."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Text:
        return Text(_shortened(task.description, max(_LEAST, self._console.width - _BESIDE)), no_wrap=True)


def _shortened(text: str, width: int) -> str:
    """Its beginning and its end, which says the step in hand, in so many columns of a terminal."""
    if cell_len(text) <= width:
        return text
    end = text[-((width - 1) * 2 // 3) :]
    while cell_len(end) > (width - 1) * 2 // 3:
        end = end[1:]
    return f"{set_cell_size(text, width - 1 - cell_len(end))}…{end}"


class _SpeedColumn(ProgressColumn):
    """Steps a second, where they are not minutes apart."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed and task.speed >= 0.05 else "")
