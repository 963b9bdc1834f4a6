"""`table`: what the records of a results folder say."""

from typing import Annotated

import typer

from harness.commands.options import RESULTS, FormatOption, ResultsOption
from harness.tables import Kind


def table(
    kind: Annotated[Kind, typer.Option("--kind", help="What the table is about; csv and json hold both.")] = "accuracy",
    format: FormatOption = "md",
    results: ResultsOption = RESULTS,
) -> None:
    """Tables from the records of a results folder; nothing is measured."""
    from harness.records import read_records
    from harness.tables import render

    typer.echo(render(read_records(results), kind, format))
