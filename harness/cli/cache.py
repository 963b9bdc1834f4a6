"""`cache`: what this project keeps on disk, shown, bounded and cleared."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from coreml_prune_bench.cli import output
from coreml_prune_bench.cli.command import App
from coreml_prune_bench.cli.options import RESULTS, JsonOption, ResultsOption, split_commas
from coreml_prune_bench.core.cache_folder import cache_folder
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.kept import Cleared, Kind, bound, clear, kinds

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

app = App(
    help="What this project keeps on disk, with sizes; `cache clear` and `cache bound` make room.\n\n"
    "That is prepared images, translated and compiled packages, and what stopped runs left. Without a command: how "
    "much of each. Results are never removed, nor what a process uses.",
)


@app.callback(invoke_without_command=True)
def show(context: typer.Context, results: ResultsOption = RESULTS, as_json: JsonOption = False) -> None:
    """What this project keeps on disk, with sizes."""
    if context.invoked_subcommand is not None:
        if as_json or results != RESULTS:
            raise BenchError(f"options belong behind the command: cache {context.invoked_subcommand} --json")
        return
    found = kinds(results)
    if as_json:
        output.show_json(_listed(found, results))
    else:
        output.show(_table(found, results))


@app.command(name="clear")
def clear_(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KIND]...", help="Of the first column of `cache`; else those that go by default."),
    ] = None,
    results: ResultsOption = RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Remove what can be made again; what is work of yours or was downloaded goes if you name it: `checkpoints`.

    For example: `cache clear images`
    """
    _tell(clear(split_commas(names), results), as_json)


@app.command(name="bound")
def bound_(
    max_size: Annotated[str, typer.Option("--max-size", metavar="SIZE", help="Such as 5GB, 500MB or 2GiB.")],
    results: ResultsOption = RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Remove from the cache folder what was not used for longest, until the rest is no larger than SIZE.

    For example: `cache bound --max-size 5GB`
    """
    _tell(bound(_bytes(max_size), results), as_json)


def _bytes(size: str) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", size, re.IGNORECASE)
    if found is None or not math.isfinite(float(found[1])):
        raise BenchError(f"--max-size {size}: expected a number of bytes with its unit, such as 5GB, 500MB or 2GiB")
    number, power, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[power.lower()])


def _table(found: Sequence[Kind], results: Path) -> str:
    rows = [
        {
            "Kind": kind.name,
            "Holds": kind.holds,
            "Entries": f"{len(kind.entries):,}",
            "In use": f"{sum(entry.used for entry in kind.entries):,}",
            "Size": _size(kind.size_bytes),
            "Cleared by default": kind.goes,
        }
        for kind in found
    ]
    total = _size(sum(kind.size_bytes for kind in found))
    return f"{output.tabled(rows)}\n\n{total} in {cache_folder()} and {results}"


def _listed(found: Sequence[Kind], results: Path) -> dict[str, object]:
    return {
        "cache": str(cache_folder()),
        "results": str(results),
        "size_bytes": sum(kind.size_bytes for kind in found),
        "kinds": [
            {
                "kind": kind.name,
                "holds": kind.holds,
                "folder": str(kind.folder),
                "entries": len(kind.entries),
                "used": sum(entry.used for entry in kind.entries),
                "size_bytes": kind.size_bytes,
                "cleared": kind.goes,
            }
            for kind in found
        ],
    }


def _tell(cleared: Sequence[Cleared], as_json: bool) -> None:
    if as_json:
        output.show_json([asdict(one) for one in cleared])
        return
    for one in cleared:
        if one.entries:
            output.show(f"{one.kind}: {one.entries:,} removed, {_size(one.size_bytes)}")
        if one.used:
            output.show(f"{one.kind}: {one.used:,} kept, because a process uses them")
    if not any(one.entries or one.used for one in cleared):
        output.show("nothing to remove")


def _size(size_bytes: int) -> str:
    number, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{size_bytes} B" if unit == "B" else f"{number:.1f} {unit}"
