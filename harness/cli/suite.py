"""`run` and `build`: the cells of a suite."""

from typing import Annotated

import typer

from coreml_prune_bench.accuracy.runtime import PORTABLE, Evaluation
from coreml_prune_bench.bench.training_options import TrainingOptions, torchrun_team
from coreml_prune_bench.cli.cluster_options import ClusterChoice, takes_cluster
from coreml_prune_bench.cli.options import (
    RESULTS,
    CheckpointOption,
    ComputeUnitsOption,
    DataOption,
    DeviceOption,
    FormatOption,
    JsonOption,
    LimitOption,
    ModelOption,
    NoImageCacheOption,
    PackageFormatOption,
    ResultsOption,
    RuntimeOption,
    SkipOption,
    SuiteOption,
    TrialsOption,
    WeightsOption,
    WideOption,
    exit_with_failures,
    named_networks,
    split_commas,
)
from coreml_prune_bench.cli.output import show, show_json, tabled, terminal_width
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.models.pruning.algorithm import algorithms

AlgorithmsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--algorithms",
        help=f"Only these algorithms of the suite ({', '.join(algorithm.name for algorithm in algorithms())}).  [all]",
    ),
]


@takes_cluster
def run(
    suite: SuiteOption = "quick",
    data: DataOption = None,
    weights: WeightsOption = None,
    model: ModelOption = None,
    algorithms: AlgorithmsOption = None,
    trials: TrialsOption = None,
    package_format: PackageFormatOption = None,
    limit: LimitOption = None,
    results: ResultsOption = RESULTS,
    skip_bad_images: SkipOption = False,
    no_image_cache: NoImageCacheOption = False,
    runtime: RuntimeOption = "portable",
    compute_units: ComputeUnitsOption = "all",
    device: DeviceOption = "auto",
    checkpoint_minutes: CheckpointOption = 10,
    asked_of_cluster: ClusterChoice = ClusterChoice(),
    wide: WideOption = False,
    format: FormatOption = "md",
    as_json: JsonOption = False,
) -> None:
    """Build and evaluate every cell of a suite and print its tables.

    A cell is one network, algorithm, config and trial. Cells that are measured already are not measured again: an
    interrupted run goes on where it was when started again, and a changed config, weight file or data set makes what
    depends on it be measured again.

    For example: `run --suite imagenet --data imagefolder:/data/x --model resnet50 --limit 500`
    """
    from coreml_prune_bench.bench.run import RunOptions
    from coreml_prune_bench.bench.run import run as run_cells
    from coreml_prune_bench.bench.suite_choice import SuiteChoice
    from coreml_prune_bench.records.chance import chance_levels
    from coreml_prune_bench.records.store import Store
    from coreml_prune_bench.report.accuracy_tables import render

    models, own = named_networks(model)
    formats = split_commas(package_format)
    chosen = SuiteChoice(suite, data, weights, models, own, split_commas(algorithms), trials, formats, limit)
    there = asked_of_cluster.elsewhere(device, results)
    with torchrun_team() as team, there as others:
        if team is not None and not team.leads:
            chosen.take_part(team, device)
            return
        reporter, store = Reporter(), Store(results)
        evaluation = Evaluation(runtime, compute_units) if runtime == "coreml" else PORTABLE
        cells = chosen.cells(reporter, evaluation)
        options = RunOptions(
            store,
            reporter,
            skip_bad_images=skip_bad_images,
            image_cache=not no_image_cache,
            training=TrainingOptions(device, checkpoint_minutes, reporter.say, team),
        )
        outcome = run_cells(cells, options, others.on(chosen, cells, evaluation).measure if others else None)
    for line in chance_levels(outcome.records):
        reporter.warn(line)
    reporter.say(f"{outcome.measured} of {len(cells)} cells measured now; records in {results / 'records'}")
    format = "json" if as_json else format
    if format == "md" and not wide and (width := terminal_width()):
        from coreml_prune_bench.report.compact import render_compact

        show(render_compact(outcome.records, width))
    else:
        show(render(outcome.records, "accuracy", format))
    if format == "latex" or (format == "md" and (wide or not terminal_width())):
        show()
        show(render(outcome.records, "size", format))
    if outcome.failed:
        exit_with_failures([f"{r.network.name}, {r.pruning.config}: {r.reason}" for r in outcome.failed])


@takes_cluster
def build(
    suite: SuiteOption = "quick",
    data: DataOption = None,
    weights: WeightsOption = None,
    model: ModelOption = None,
    algorithms: AlgorithmsOption = None,
    trials: TrialsOption = None,
    package_format: PackageFormatOption = None,
    results: ResultsOption = RESULTS,
    skip_bad_images: SkipOption = False,
    device: DeviceOption = "auto",
    checkpoint_minutes: CheckpointOption = 10,
    asked_of_cluster: ClusterChoice = ClusterChoice(),
    as_json: JsonOption = False,
) -> None:
    """Prune and convert only; print where the packages are.

    For example: `build --suite imagenet --data imagefolder:/data/x --model resnet50`
    """
    from coreml_prune_bench.bench.run import RunOptions, build_all
    from coreml_prune_bench.bench.suite_choice import SuiteChoice
    from coreml_prune_bench.records.store import Store

    models, own = named_networks(model)
    formats = split_commas(package_format)
    chosen = SuiteChoice(suite, data, weights, models, own, split_commas(algorithms), trials, formats)
    there = asked_of_cluster.elsewhere(device, results)
    with torchrun_team() as team, there as others:
        if team is not None and not team.leads:
            chosen.take_part(team, device)
            return
        reporter, store = Reporter(), Store(results)
        options = RunOptions(
            store,
            reporter,
            skip_bad_images=skip_bad_images,
            training=TrainingOptions(device, checkpoint_minutes, reporter.say, team),
        )
        cells = chosen.cells(reporter)
        built, problems = build_all(cells, options, others.on(chosen, cells).build if others else None)
    found = [{"cell": cell.name, "package": str(path)} for cell, path in built]
    if as_json:
        show_json(found)
    else:
        show(tabled(found))
    if problems:
        exit_with_failures(problems)
