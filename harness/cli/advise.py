"""`advise`: the algorithm and the config for one network and its images, found by measuring."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tabulate import tabulate

from coreml_prune_bench.cli.options import (
    RESULTS,
    CheckpointOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    ResultsOption,
    SkipOption,
    WeightsOption,
)
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter

if TYPE_CHECKING:
    from coreml_prune_bench.advise.advice import Advice, Tried
    from coreml_prune_bench.advise.search import Search
    from coreml_prune_bench.bench.cells import Cell, Subject
    from coreml_prune_bench.models.pruning.config import PruningConfig
    from coreml_prune_bench.records.accuracy import Record
    from coreml_prune_bench.records.store import Store


def advise(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SPEC",
            help="Your images, as `run` takes them. What is not for training is divided: half to choose by, half to "
            "judge the choice. 5,000 of each are used at most.",
        ),
    ],
    max_drop: Annotated[
        float, typer.Option("--max-drop", min=0, help="Points of top-1 that may be lost, above 0.")
    ] = 1.0,
    min_ratio: Annotated[
        float | None,
        typer.Option(
            "--min-ratio",
            min=1,
            help="How many times smaller weight.bin has to be: the first package that meets both ends the search. "
            "Without it, the budget is used to find the smallest one.",
        ),
    ] = None,
    budget: Annotated[str, typer.Option("--budget", metavar="TIME", help="Such as 90s, 30m or 2h.")] = "30m",
    float16: Annotated[
        bool, typer.Option("--float16", help="Only packages that run on iOS17: no 8-bit weights, which need iOS18.")
    ] = False,
    weights: WeightsOption = None,
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            help="A suite that says whether the network is pre-trained, and how it is trained if it is not or if the "
            "images have other classes; its configs do not count. `digits` trains from scratch.",
        ),
    ] = "imagenet",
    results: ResultsOption = RESULTS,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the package goes; else RESULTS/advice/NETWORK."),
    ] = None,
    skip_bad_images: SkipOption = False,
    device: DeviceOption = "auto",
    checkpoint_minutes: CheckpointOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Find the smallest package of a network that loses no more than you allow, and say why it is that one.

    It goes the way of Core ML Tools' guide: configs without data to see sizes; then pruning without data, SparseGPT,
    blockwise reconstruction and MagnitudePruner, with --min-ratio each only where the one before it was not enough.
    Every package is an ordinary cell of the results folder: a stopped search goes on where it was, and `table` and
    `report` show it all.

    For example: `advise mobilenet_v2 --data imagefolder:/data/x --max-drop 1 --min-ratio 1.7 --budget 1h`

    Exit code 0: the goal is met on images that had no say in the choice. 1: it is not; the best that was found is
    written all the same.
    """
    from coreml_prune_bench.advise.advice import Goal
    from coreml_prune_bench.advise.budget import Budget, read_duration
    from coreml_prune_bench.advise.output import check_folder, write_advice
    from coreml_prune_bench.advise.search import Search
    from coreml_prune_bench.bench.run import RunOptions, run
    from coreml_prune_bench.bench.training_options import TrainingOptions
    from coreml_prune_bench.records.store import Store

    limit = Budget(read_duration(budget))
    reporter, store = Reporter(), Store(results)
    selection, final = _subjects(model, data, suite, weights, reporter)
    folder = out or results / "advice" / selection.network.name
    check_folder(folder)
    options = RunOptions(
        store,
        _Silent(limit.watch),
        skip_bad_images=skip_bad_images,
        training=TrainingOptions(device, checkpoint_minutes, reporter.say),
    )

    def measure(cell: "Cell") -> "Record":
        (record,) = run([cell], options).records
        return record

    search = Search(
        selection,
        final,
        Goal(max_drop=max_drop, min_ratio=min_ratio, eight_bits=not float16),
        measure=measure,
        fitted=lambda config: _fitted(config, selection),
        latencies=_latencies(results),
        budget=limit,
        say=reporter.say,
    )
    advice = search.run()
    package, yaml = _package(search, advice, store)
    write_advice(folder, advice, search.attempts, selection, package, yaml)
    typer.echo(advice.model_dump_json(indent=1) if as_json else _told(advice, folder))
    if not advice.met:
        raise typer.Exit(1)


class _Silent(Reporter):
    """Bars alone: what a run says of each cell, the decisions say in other words."""

    def say(self, line: str) -> None:
        pass


def _subjects(
    model: str, spec: str, suite: str, weights: Path | None, reporter: Reporter
) -> tuple["Subject", "Subject"]:
    """The network on the images to choose by, and on those that judge."""
    from coreml_prune_bench.bench.cells import lay_out
    from coreml_prune_bench.bench.suite import DEFAULT_DATA, load_suite
    from coreml_prune_bench.data.halves import PARTS, part_of
    from coreml_prune_bench.models.registry import get_network

    given = load_suite(suite)
    if given.packages:
        raise BenchError(f"--suite {suite} measures packages as they are; expected one that builds networks")
    own = given.model_copy(update={"models": (get_network(model).spec,), "data": {DEFAULT_DATA: spec}, "configs": ()})
    (cell,) = lay_out(own, weights)
    _check_classes(cell.subject, spec, suite)
    whole = cell.subject.data
    selection, final = (replace(cell.subject, suite="advise", data=part_of(whole, part)) for part in PARTS)
    splits = [split for split in (whole.train, selection.data.val, final.data.val) if split]
    with reporter.steps(f"reading {spec}", len(splits)) as steps:
        for split in splits:
            split.compute_fingerprint(steps.within(split.name))
            steps.advance()
    return selection, final


def _check_classes(subject: "Subject", spec: str, suite: str) -> None:
    """Raises BenchError where the data needs a new head and nothing says how it is trained."""
    from coreml_prune_bench.models.weights import head_classes, load_pretrained

    if not subject.pretrained or subject.training is not None:
        return
    classes = head_classes(subject.network, load_pretrained(subject.network, subject.weights_folder))
    if classes != len(subject.data.classes):
        raise BenchError(
            f"{spec} has {len(subject.data.classes)} classes, the weights of {subject.network.name} {classes}; name a "
            f"suite with a [training] table with --suite, which {suite} does not have"
        )


def _fitted(config: "PruningConfig", subject: "Subject") -> "PruningConfig":
    from coreml_prune_bench.models.pruning.task import fitted_to
    from coreml_prune_bench.models.weights import untrained_model

    if config.pattern is None:
        return config
    return fitted_to(config, subject.network, untrained_model(subject.network, len(subject.data.classes)))


def _latencies(results: Path) -> dict[str, float]:
    """Median milliseconds on Apple hardware by the SHA-256 of a package, as far as the results folder knows."""
    from coreml_prune_bench.records.latency import read_latency_records

    measured = [r for r in read_latency_records(results) if r.status == "measured" and r.runtime.name == "coreml"]
    if not measured:
        return {}
    from coreml_prune_bench.latency.statistics import summarize

    # Of several devices or compute units, one: medians of others say nothing beside it.
    newest = max(measured, key=lambda record: record.provenance.created)
    alike = [
        r
        for r in measured
        if (r.device.name, r.runtime, r.protocol) == (newest.device.name, newest.runtime, newest.protocol)
    ]
    return {record.package.sha256: summarize(record).median_ns.value / 1e6 for record in alike}


def _package(search: "Search", advice: "Advice", store: "Store") -> tuple[Path | None, dict[str, str]]:
    """The package that was chosen, or comes closest, and its config for Core ML Tools."""
    if advice.best is None:
        return None, {}
    from coreml_prune_bench.bench.build.builder import Builder
    from coreml_prune_bench.bench.cells import Cell
    from coreml_prune_bench.models.pruning.coremltools_yaml import coremltools_yaml

    attempt = search.attempts[advice.best]
    built = Builder(store, lambda what, done, total: None).build(Cell(search.selection, attempt.config, 0))
    images = advice.training_images - len(built.made.train_skipped)
    return built.path, coremltools_yaml(attempt.config, built.made.targets, images)


def _told(advice: "Advice", folder: Path) -> str:
    """The advice for a reader."""
    from coreml_prune_bench.advise.advice import INTERVAL

    goal, final = advice.goal, advice.final
    asked = f"at most {goal.max_drop:g} points below the dense network" + (
        f", at least {goal.min_ratio:g} times smaller" if goal.min_ratio else ""
    )
    dense = advice.tried[0].selection.dense_top1
    notes = f"Dense: {dense:.2f} % on the images to choose by. *: no other is as small and as accurate."
    table = tabulate([_row(one) for one in advice.tried], headers="keys", tablefmt="github", disable_numparse=True)
    lines = [f"{advice.title} on {advice.data}: {asked}. {notes}", "", table, ""]
    if advice.best is None or final is None:
        lines.append(f"No package is {goal.min_ratio or 1:g} times smaller. What was tried is in {folder}.")
        return "\n".join(lines)
    best = advice.tried[advice.best]
    if advice.chosen is None:
        lines.append("No package was shown to be within that. The closest:")
    lines += [
        f"{best.title}, {best.config}: {best.ratio:.2f} times smaller, {best.weight_bytes:,} bytes of weights.",
        f"On {final.images:,} images that had no say in the choice it has {final.top1:.2f} % top-1, the dense network "
        f"{final.dense_top1:.2f} %: {final.drop:.2f} points lost ({INTERVAL} {final.low:.2f} to {final.high:.2f}), "
        f"{_verdict(advice)}.",
        f"Written to {folder}: the package, its config as Core ML Tools' YAML, advise.toml with all that was tried.",
    ]
    return "\n".join(lines)


def _row(tried: "Tried") -> dict[str, str]:
    from coreml_prune_bench.advise.advice import INTERVAL

    return {
        "Config": tried.config,
        "Optimization Algorithm": tried.title,
        "Compression Ratio": f"{tried.ratio:.2f}",
        "Accuracy": f"{tried.selection.top1:.2f}",
        "Drop": f"{tried.selection.drop:.2f}",
        INTERVAL.capitalize(): f"{tried.selection.low:.2f} to {tried.selection.high:.2f}",
        "Within": "yes" if tried.within else "no",
        "Front": "*" if tried.front else "",
    } | ({} if tried.latency_ms is None else {"Latency (ms)": f"{tried.latency_ms:.2f}"})


def _verdict(advice: "Advice") -> str:
    assert advice.final is not None
    if advice.final.drop > advice.goal.max_drop:
        return "more than allowed"
    if advice.chosen is None:
        return "within what is allowed, by chance perhaps, for it was not shown to be before"
    return "within what is allowed"
