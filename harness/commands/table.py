"""`table`: what the records of a results folder say."""

from typing import Annotated, Literal

import typer

from harness.commands.options import RESULTS, FormatOption, ResultsOption
from harness.errors import BenchError
from harness.tables import Kind


def table(
    kind: Annotated[
        Kind | None,
        typer.Option("--kind", help="What the table is about: accuracy if not given; csv and json hold both."),
    ] = None,
    compare: Annotated[
        Literal["published"] | None,
        typer.Option("--compare", help="Each row beside its counterpart in the published table, with the differences."),
    ] = None,
    format: FormatOption = "md",
    results: ResultsOption = RESULTS,
) -> None:
    """Tables from the records of a results folder; nothing is measured."""
    from harness.records import read_records
    from harness.tables import render, render_comparison

    if compare and kind:
        raise BenchError("--compare published is a table of accuracy and size: leave out --kind")
    records = read_records(results)
    typer.echo(render_comparison(records, format) if compare else render(records, kind or "accuracy", format))
