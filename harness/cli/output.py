"""Standard output: what commands print, for readers or for programs."""

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coreml_prune_bench.core.escaping import json_text, message, printable
from coreml_prune_bench.report.formats import write_cells


def show(content: object = "") -> None:
    """Lines for readers. Of what a package, record or folder brings in, a terminal obeys nothing."""
    print(printable(str(content)))


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def tabled(rows: Sequence[Mapping[str, object]], *, keep: Iterable[str] = ()) -> str:
    """Rows of the same headers: a table that fits the terminal, or Markdown where standard output is none.

    keep: columns that stay where they are the same in all rows.
    """
    return write_cells(rows, width=terminal_width(), keep=keep)


def show_line(content: str) -> None:
    """One line for readers, whatever is in it."""
    print(message(content))


def show_json(content: Any, indent: int = 2) -> None:
    """Plain values as JSON, or what is JSON already."""
    print(json_text(content) if isinstance(content, str) else json.dumps(content, indent=indent))
