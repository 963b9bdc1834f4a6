"""`run` and `build`: the cells of a suite."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from tabulate import tabulate

from harness.commands.options import (
    RESULTS,
    AlgorithmsOption,
    DataOption,
    FormatOption,
    JsonOption,
    ModelsOption,
    ResultsOption,
    SkipOption,
    SuiteOption,
    TrialsOption,
    WeightsOption,
    exit_with_failures,
    split_commas,
)
from harness.progress import Reporter

if TYPE_CHECKING:
    from harness.cells import Cell
    from harness.data import DataSet


def run(
    suite: SuiteOption = "quick",
    data: DataOption = None,
    weights: WeightsOption = None,
    models: ModelsOption = None,
    algorithms: AlgorithmsOption = None,
    trials: TrialsOption = None,
    results: ResultsOption = RESULTS,
    skip_bad_images: SkipOption = False,
    format: FormatOption = "md",
) -> None:
    """Build and evaluate every cell of a suite and print its tables.

    A cell is one network, algorithm, config and trial. Cells that are measured already are not measured again: an
    interrupted run goes on where it was when started again, and a changed config, weight file or data set makes what
    depends on it be measured again.
    """
    from harness.run import run as run_cells
    from harness.store import Store
    from harness.tables import render

    reporter = Reporter()
    cells = _cells(reporter, suite, data, weights, models, algorithms, trials)
    outcome = run_cells(cells, Store(results), reporter, skip_bad_images=skip_bad_images)
    reporter.say(f"{outcome.measured} of {len(cells)} cells measured now; records in {results / 'records'}")
    typer.echo(render(outcome.records, "accuracy", format))
    if format in ("md", "latex"):
        typer.echo()
        typer.echo(render(outcome.records, "size", format))
    if outcome.failed:
        exit_with_failures([f"{r.network.name}, {r.pruning.config}: {r.reason}" for r in outcome.failed])


def build(
    suite: SuiteOption = "quick",
    data: DataOption = None,
    weights: WeightsOption = None,
    models: ModelsOption = None,
    algorithms: AlgorithmsOption = None,
    trials: TrialsOption = None,
    results: ResultsOption = RESULTS,
    skip_bad_images: SkipOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prune and convert only; print where the packages are."""
    from harness.run import build_all
    from harness.store import Store

    reporter = Reporter()
    cells = _cells(reporter, suite, data, weights, models, algorithms, trials)
    built, problems = build_all(cells, Store(results), reporter, skip_bad_images=skip_bad_images)
    found = [{"cell": cell.name, "package": str(path)} for cell, path in built]
    typer.echo(json.dumps(found, indent=2) if as_json else tabulate(found, headers="keys", tablefmt="github"))
    if problems:
        exit_with_failures(problems)


def _cells(
    reporter: Reporter,
    suite: str,
    data: list[str] | None,
    weights: Path | None,
    models: list[str] | None,
    algorithms: list[str] | None,
    trials: int | None,
) -> "list[Cell]":
    from harness.cells import lay_out
    from harness.suite import choose, load_suite

    chosen = choose(
        load_suite(suite), models=split_commas(models), algorithms=split_commas(algorithms), trials=trials, data=data
    )

    def fingerprint(opened: "DataSet") -> None:
        splits = [split for split in (opened.train, opened.val) if split]
        with reporter.steps(f"reading {opened.spec}", len(splits)) as steps:
            for split in splits:
                split.compute_fingerprint(steps.within(split.name))
                steps.advance()

    return lay_out(chosen, weights, fingerprint)
