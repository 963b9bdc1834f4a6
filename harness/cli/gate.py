"""`gate`: a run against a baseline."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from coreml_prune_bench.cli.options import RESULTS, JsonOption, ModelsOption, RequireOption, ResultsOption, split_commas
from coreml_prune_bench.cli.output import show, tabled


def gate(
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="FILE|DIR|GIT-REF",
            help="A baseline file, a results folder, or a git revision: REV for its results/baseline.json, REV:FILE. "
            " [absolute rules alone]",
        ),
    ] = None,
    results: ResultsOption = RESULTS,
    rules: Annotated[
        Path | None,
        typer.Option(
            "--rules",
            metavar="FILE",
            help="A TOML file of what is allowed; its keys stand in docs/gate.md.",
        ),
    ] = None,
    require: RequireOption = None,
    models: ModelsOption = None,
    against_dense: Annotated[
        bool,
        typer.Option(
            "--against-dense",
            help="Compare each pruned row with the baseline's dense row of its model, not with its own older self.",
        ),
    ] = False,
    format: Annotated[
        Literal["table", "junit", "github", "json"],
        typer.Option(
            "--format",
            help="`github` writes annotations, and the summary to the file that GITHUB_STEP_SUMMARY names.",
        ),
    ] = "table",
    as_json: JsonOption = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Write the report there, in place of an earlier one; only its first line is printed.",
        ),
    ] = None,
) -> None:
    """Say of each row of a run whether it is better, the same or worse than in a baseline, or that nobody can tell.

    For example: `gate --baseline main`, or without a history: `gate --require "top1 >= 75" --require "package_mb <= 4"`

    Nothing is measured. Exit code 0: passed. 1: a row is worse, or missing (the rules may say otherwise). 2: a row
    could not be compared, or the gate could not be evaluated.
    """
    from coreml_prune_bench.core.files import refuse_file, write_atomically
    from coreml_prune_bench.gating.folder import gate_folder
    from coreml_prune_bench.gating.reports import (
        as_github_annotations,
        as_github_summary,
        as_junit,
        as_table,
        headline,
    )
    from coreml_prune_bench.gating.reports import as_json as written_as_json

    if as_json:
        format = "json"
    if output is not None:
        refuse_file(output, f"--output {output}", replace=True)
    report = gate_folder(
        results,
        baseline,
        rules=rules,
        require=require or (),
        against_dense=against_dense,
        models=split_commas(models),
    )
    summary = os.environ.get("GITHUB_STEP_SUMMARY") if format == "github" else None
    plain = partial(as_table, write=partial(tabled, keep=("Verdict", "Run"))) if output is None else as_table
    text = {"table": plain, "junit": as_junit, "json": written_as_json, "github": as_github_summary}[format](report)
    if output is not None:
        write_atomically(output, text.rstrip("\n") + "\n")
        show(headline(report))
    elif not summary:
        show(text)
    if format == "github" and (annotations := as_github_annotations(report)):
        show(annotations)
    if summary:  # at the end: what is printed is not lost where that file takes nothing
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text)
    raise typer.Exit(report.exit_code)
