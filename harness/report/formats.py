"""Columns as data, and the one place where a table becomes Markdown, LaTeX, CSV or JSON.

A table is a list of rows of any type and a list of columns of that type. It knows nothing of what a row is, and imports
neither pandas nor NumPy, which would take longer than a table.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from coreml_prune_bench.core.escaping import csv_cell, latex_comment, latex_table, markdown, markdown_line, one_line

Format = Literal["md", "csv", "json", "latex"]

Source = TypeVar("Source")
"""What a row is made of."""

_LAST = 1000


def text(value: object) -> str:
    """As it is; "-" for nothing."""
    return "-" if value is None or value == "" else str(value)


def number(form: str = ".2f") -> Callable[[float | None], str]:
    """How a number reads, in Python's format language; "-" for None."""
    return lambda value: "-" if value is None else format(value, form)


def percent(form: str = ".1f") -> Callable[[float | None], str]:
    """How a fraction reads as a percentage, such as "75.0 %"; "-" for None."""
    return lambda fraction: "-" if fraction is None else f"{100 * fraction:{form}} %"


@dataclass(frozen=True)
class Column(Generic[Source]):
    """One column of a table, whole: adding a column is adding one of these to a list.

    name: in CSV, JSON and data frames, where it never changes; None for a column that readers alone see.
    value: of a row, plain (a number, a text, None).
    header, form: what stands above it for readers, and how they read a value.
    tables: the tables for readers that it is in; none where it is for CSV and JSON alone.
    place: how far to the right among the columns of a table, the last if not given. CSV and JSON: as listed.
    """

    name: str | None
    value: Callable[[Source], Any]
    header: str = ""
    form: Callable[[Any], str] = text
    tables: tuple[str, ...] = ()
    place: int = _LAST


def values(columns: Iterable[Column[Source]], row: Source) -> dict[str, Any]:
    """What CSV, JSON and data frames hold of a row, by name."""
    return {column.name: column.value(row) for column in columns if column.name is not None}


def cells(columns: Iterable[Column[Source]], row: Source, table: str) -> dict[str, str]:
    """What a reader of `table` sees of a row, by header."""
    shown = sorted((column for column in columns if table in column.tables), key=lambda column: column.place)
    return {column.header: column.form(column.value(row)) for column in shown}


def write_values(rows: Sequence[Mapping[str, Any]], format: Literal["csv", "json"]) -> str:
    """Rows of the same names as CSV, with a head of names, or as a JSON list of objects.

    In CSV a text that a spreadsheet would compute has an apostrophe before it; JSON has every text as it is.
    """
    if format == "json":
        return json.dumps(rows, indent=2)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return file.getvalue().rstrip("\n")


def write_cells(
    rows: Sequence[Mapping[str, object]],
    format: Literal["md", "latex"] = "md",
    *,
    caption: str = "",
    remarks: Sequence[str] = (),
    width: int | None = None,
    keep: Iterable[str] = (),
) -> str:
    """Rows of the same headers as a table for readers, its caption above and its remarks below, a line each.

    Captions and remarks are lines of Markdown; in LaTeX they are comments. width: of a terminal, which has the table
    in so many columns in the place of Markdown; keep: columns that stay in it where they are the same in all rows.
    """
    if format == "md" and width:
        from coreml_prune_bench.report.terminal import fitted

        below = "\n".join(fitted([], width, caption=f"- {remark}") for remark in remarks)
        return "\n\n".join(part for part in (fitted(rows, width, caption=caption, keep=keep), below) if part)
    from tabulate import tabulate

    if format == "latex":
        flat = [{one_line(name): one_line(cell) for name, cell in row.items()} for row in rows]
        body = tabulate(flat, headers="keys", tablefmt="latex_booktabs", disable_numparse=True)
        parts = [latex_comment(caption), latex_table(body), "\n".join(map(latex_comment, remarks))]
    else:
        escaped = [{markdown(name): markdown(cell) for name, cell in row.items()} for row in rows]
        body = tabulate(escaped, headers="keys", tablefmt="github", disable_numparse=True)
        parts = [markdown_line(caption), body, "\n".join(f"- {markdown_line(remark)}" for remark in remarks)]
    return "\n\n".join(part for part in parts if part)
