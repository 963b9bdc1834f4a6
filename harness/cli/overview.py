"""The list of commands, `--help` without one: as Typer draws it, without the Markdown that takes most of its time.

Typer imports a parser of Markdown and colours for tracebacks to draw any help; a list of lines needs Rich alone.
"""

import io
import re
import shutil
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_MARKED = re.compile(r"\*\*(.+?)\*\*|`(.+?)`")


def overview(usage: str, about: str, panels: Mapping[str, Sequence[tuple[str, str]]], end: Sequence[str]) -> str:
    """As wide as the terminal, coloured on one. panels: by title its names, each with a line; end: paragraphs.

    Lines may have ** and `.
    """
    text = io.StringIO()
    width = shutil.get_terminal_size().columns
    console = Console(file=text, width=width, force_terminal=sys.stdout.isatty(), highlight=False)
    console.print(Padding(Text(usage.strip(), "bold yellow"), 1))
    console.print(Padding(_text(about), (0, 1, 1, 1)))
    width = max(len(name) for rows in panels.values() for name, _ in rows)
    for title, rows in panels.items():
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="bold cyan", width=width, no_wrap=True)
        table.add_column(ratio=1)
        for name, line in rows:
            table.add_row(name, _text(line))
        console.print(Panel(table, title=title, title_align="left", border_style="dim"))
    for paragraph in end:
        console.print(Padding(_text(paragraph), (1, 1, 0, 1)))
    return text.getvalue()


def _text(line: str) -> Text:
    text, at = Text(), 0
    for found in _MARKED.finditer(line):
        text.append(line[at : found.start()])
        text.append(found[1] or found[2], "bold" if found[1] else "bold cyan")
        at = found.end()
    return text.append(line[at:])
