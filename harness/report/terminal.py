"""Tables for a terminal: they fit its width, and what is the same in every row stands above them.

rich lays them out: texts wrap within their column, numbers are never cut. It must not know what a row is.
"""

import io
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coreml_prune_bench.core.escaping import one_line

_LEAST = 40
"""Columns of a terminal; one that is narrower wraps lines itself."""
_LONGEST_WORD = 16
_GAP = 2
_NUMBER = 20
"""Letters of the longest number, with what belongs to it."""


def fitted(rows: Sequence[Mapping[str, object]], width: int, *, caption: str = "", keep: Iterable[str] = ()) -> str:
    """Rows of the same headers, in lines of at most `width` columns, the caption above.

    A column that is the same in all of several rows goes above the table; where there is no room for all of them, the
    last columns are left out, and named below it. Neither happens to those in `keep`.
    """
    width = max(width, _LEAST)
    shown = [{name: one_line(str(cell)) for name, cell in row.items()} for row in rows]
    constant = _constant(shown, set(keep))
    columns = {name: [row[name] for row in shown] for name in (shown[0] if shown else {}) if name not in constant}
    left_out = _too_many(columns, width, set(keep))
    columns = {name: cells for name, cells in columns.items() if name not in left_out}
    parts: list[Text | Table] = [Text(text) for text in (caption, _told(constant)) if text]
    if columns:
        parts += [Text(""), _laid_out(columns, width)] if parts else [_laid_out(columns, width)]
    if left_out:
        parts.append(Text(f"No room here for: {', '.join(left_out)}. Piped, the table has every column."))
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _laid_out(columns: Mapping[str, list[str]], width: int) -> Table:
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="")
    for (name, cells), size in zip(columns.items(), _widths(columns, width), strict=True):
        justify = "right" if _are_numbers(cells) else "left"
        table.add_column(Text(name), justify=justify, width=size, overflow="fold")  # type: ignore[arg-type]
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, row))
    return table


def _widths(columns: Mapping[str, list[str]], width: int) -> list[int]:
    """Of each column: at least what it needs, and of what is left as much as it can use, the neediest last."""
    least = [_least(name, cells) for name, cells in columns.items()]
    wanted = [max(map(cell_len, (name, *cells))) for name, cells in columns.items()]
    spare = width - sum(least) - _GAP * (len(least) - 1)
    while spare > 0 and (growing := [place for place, size in enumerate(least) if size < wanted[place]]):
        narrowest = min(growing, key=lambda place: least[place])
        least[narrowest] += 1
        spare -= 1
    return least


def _too_many(columns: Mapping[str, list[str]], width: int, keep: set[str]) -> list[str]:
    """The last columns, as many as have no room."""
    needed = sum(_least(name, cells) + _GAP for name, cells in columns.items()) - _GAP
    found: list[str] = []
    for name, cells in reversed(list(columns.items())):
        if needed > width and name not in keep:
            needed -= _least(name, cells) + _GAP
            found.insert(0, name)
    return found


def _least(name: str, cells: Sequence[str]) -> int:
    """A number is never cut, a text between words alone if they are not too long."""
    if _are_numbers(cells):
        return max(map(cell_len, (*cells, *name.split())))
    words = [word for text in (name, *cells) for word in text.split()]
    return min(max(map(cell_len, words), default=1), _LONGEST_WORD)


def _constant(rows: Sequence[Mapping[str, str]], keep: set[str]) -> dict[str, str]:
    if len(rows) < 2:
        return {}
    found = {name: cell for name, cell in rows[0].items() if name not in keep}
    return {name: cell for name, cell in found.items() if all(row[name] == cell for row in rows)}


def _told(constant: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {cell}" for name, cell in constant.items() if cell != "-")


def _are_numbers(cells: Sequence[str]) -> bool:
    """Or what is as short and begins as one, such as "83.43 ± 1.41"."""
    return all(cell in ("-", "?", "") or (cell[:1] in "+-0123456789<" and len(cell) <= _NUMBER) for cell in cells)
