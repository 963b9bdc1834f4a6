"""`run` and `build`: the cells of a suite."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from tabulate import tabulate

from coreml_prune_bench.accuracy.runtime import PORTABLE, Evaluation
from coreml_prune_bench.bench.training_options import TrainingOptions, torchrun_team
from coreml_prune_bench.cli.options import (
    RESULTS,
    AlgorithmsOption,
    CheckpointOption,
    ComputeUnitsOption,
    DataOption,
    DeviceOption,
    FormatOption,
    JsonOption,
    ModelOption,
    ModelsOption,
    NoImageCacheOption,
    ResultsOption,
    RuntimeOption,
    SkipOption,
    SuiteOption,
    TrialsOption,
    WeightsOption,
    exit_with_failures,
    split_commas,
)
from coreml_prune_bench.core.progress import Reporter

if TYPE_CHECKING:
    from coreml_prune_bench.bench.cells import Cell
    from coreml_prune_bench.bench.suite import Suite
    from coreml_prune_bench.data import DataSet
    from coreml_prune_bench.models.distributed import Team


@dataclass(frozen=True)
class SuiteChoice:
    """Which suite, and what the command line says in place of some of it; each as the option of `run` takes it.

    own: networks of the user's (`--model`), beside `models` or in place of the suite's.
    """

    suite: str
    data: list[str] | None = None
    weights: Path | None = None
    models: list[str] | None = None
    own: list[str] | None = None
    algorithms: list[str] | None = None
    trials: int | None = None

    def load(self) -> "Suite":
        """The suite as chosen. Raises SuiteError of one line."""
        from coreml_prune_bench.bench.suite import choose, load_suite

        return choose(
            load_suite(self.suite),
            models=split_commas(self.models),
            own=self.own,
            algorithms=split_commas(self.algorithms),
            trials=self.trials,
            data=self.data,
        )

    def cells(self, reporter: Reporter, evaluation: Evaluation = PORTABLE) -> "list[Cell]":
        """Its cells, the data fingerprinted with a progress bar. Raises BenchError of one line."""
        from coreml_prune_bench.bench.cells import lay_out
        from coreml_prune_bench.bench.suite import left_out

        chosen = self.load()
        for line in left_out(chosen, self.own or []):
            reporter.say(line)

        def fingerprint(opened: "DataSet") -> None:
            trains = chosen.training is not None or any(config.needs_data for config in chosen.configs)
            splits = [split for split in (opened.train if trains else None, opened.val) if split]
            with reporter.steps(f"reading {opened.spec}", len(splits)) as steps:
                for split in splits:
                    split.compute_fingerprint(steps.within(split.name))
                    steps.advance()

        return lay_out(chosen, self.weights, fingerprint, evaluation)

    def take_part(self, team: "Team", device: str) -> None:
        """What torchrun's other processes do: train what the first one trains."""
        from coreml_prune_bench.bench.build.followers import take_part
        from coreml_prune_bench.bench.cells import lay_out

        take_part(team, lambda: [cell.subject for cell in lay_out(self.load(), self.weights)], device)


def run(
    suite: SuiteOption = "quick",
    data: DataOption = None,
    weights: WeightsOption = None,
    models: ModelsOption = None,
    model: ModelOption = None,
    algorithms: AlgorithmsOption = None,
    trials: TrialsOption = None,
    results: ResultsOption = RESULTS,
    skip_bad_images: SkipOption = False,
    no_image_cache: NoImageCacheOption = False,
    runtime: RuntimeOption = "portable",
    compute_units: ComputeUnitsOption = "all",
    device: DeviceOption = "auto",
    checkpoint_minutes: CheckpointOption = 10,
    format: FormatOption = "md",
) -> None:
    """Build and evaluate every cell of a suite and print its tables.

    A cell is one network, algorithm, config and trial. Cells that are measured already are not measured again: an
    interrupted run goes on where it was when started again, and a changed config, weight file or data set makes what
    depends on it be measured again.
    """
    from coreml_prune_bench.bench.run import RunOptions
    from coreml_prune_bench.bench.run import run as run_cells
    from coreml_prune_bench.records.store import Store
    from coreml_prune_bench.report.accuracy_tables import render

    chosen = SuiteChoice(suite, data, weights, models, model, algorithms, trials)
    with torchrun_team() as team:
        if team is not None and not team.leads:
            chosen.take_part(team, device)
            return
        reporter = Reporter()
        evaluation = Evaluation(runtime, compute_units) if runtime == "coreml" else PORTABLE
        cells = chosen.cells(reporter, evaluation)
        options = RunOptions(
            Store(results),
            reporter,
            skip_bad_images=skip_bad_images,
            image_cache=not no_image_cache,
            training=TrainingOptions(device, checkpoint_minutes, reporter.say, team),
        )
        outcome = run_cells(cells, options)
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
    model: ModelOption = None,
    algorithms: AlgorithmsOption = None,
    trials: TrialsOption = None,
    results: ResultsOption = RESULTS,
    skip_bad_images: SkipOption = False,
    device: DeviceOption = "auto",
    checkpoint_minutes: CheckpointOption = 10,
    as_json: JsonOption = False,
) -> None:
    """Prune and convert only; print where the packages are."""
    from coreml_prune_bench.bench.run import RunOptions, build_all
    from coreml_prune_bench.records.store import Store

    chosen = SuiteChoice(suite, data, weights, models, model, algorithms, trials)
    with torchrun_team() as team:
        if team is not None and not team.leads:
            chosen.take_part(team, device)
            return
        reporter = Reporter()
        options = RunOptions(
            Store(results),
            reporter,
            skip_bad_images=skip_bad_images,
            training=TrainingOptions(device, checkpoint_minutes, reporter.say, team),
        )
        built, problems = build_all(chosen.cells(reporter), options)
    found = [{"cell": cell.name, "package": str(path)} for cell, path in built]
    typer.echo(json.dumps(found, indent=2) if as_json else tabulate(found, headers="keys", tablefmt="github"))
    if problems:
        exit_with_failures(problems)
