"""Advice for one network and its images: the search, what it builds on, and what it leaves behind."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from coreml_prune_bench.advice.advice import Advice, Goal
from coreml_prune_bench.advice.budget import Budget, read_duration
from coreml_prune_bench.advice.elsewhere import measured_elsewhere
from coreml_prune_bench.advice.output import check_folder, write_advice
from coreml_prune_bench.advice.search import Search
from coreml_prune_bench.bench.build.builder import Builder
from coreml_prune_bench.bench.cells import Cell, Subject, lay_out
from coreml_prune_bench.bench.contention import tell_if_busy
from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.bench.formats.protocol import get_format
from coreml_prune_bench.bench.head_rows import head_rows
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import DEFAULT_DATA, Suite, load_suite
from coreml_prune_bench.bench.training_options import TrainingOptions
from coreml_prune_bench.core.errors import BenchError, CellFailedError
from coreml_prune_bench.core.extras import extras_named
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.data.halves import PARTS, part_of
from coreml_prune_bench.latency.statistics import median_ms
from coreml_prune_bench.models.preprocessing import Preprocessing
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.coremltools_yaml import coremltools_yaml
from coreml_prune_bench.models.pruning.task import fitted_to
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import head_classes, load_pretrained, untrained_model
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.latency import read_latency_records
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.runtimes.protocol import RuntimeName

if TYPE_CHECKING:
    from coreml_prune_bench.cluster.run import Elsewhere


@extras_named()
def advise(
    model: str,
    data: str,
    *,
    max_drop: float = 1.0,
    min_ratio: float | None = None,
    eight_bits: bool = True,
    package_format: str = MLPACKAGE.name,
    budget: str = "30m",
    suite: str = "imagenet",
    weights: str | Path | None = None,
    results: str | Path = "results/local",
    out: str | Path | None = None,
    skip_bad_images: bool = False,
    device: str = "auto",
    checkpoint_minutes: float = 1,
    preprocessing: Preprocessing | None = None,
    elsewhere: "Elsewhere | None" = None,
) -> Advice:
    """Find the smallest package of a network that loses no more than `max_drop` points of top-1, and write it.

    model, data, weights, device: as `run` takes them. min_ratio: how many times smaller weight.bin has to be; None: as
    small as the budget allows. eight_bits: packages may need iOS18; a .aimodel has no such
    weights. package_format: "mlpackage" or "aimodel". budget: such as "30m". suite: says how the network
    is trained, if it is. preprocessing: how images come to be what the network was trained with, in place of what the
    suite or the network says. elsewhere: a cluster that builds and measures; None for this process.
    out: the folder that the package goes to; None: RESULTS/advice/NETWORK.
    Raises BenchError of one line for what the user can mend.
    """
    form = get_format(package_format)
    results, weights = Path(results), Path(weights) if weights else None
    reporter = Reporter()
    limit = Budget(read_duration(budget))
    store = Store(results)
    if out:
        check_folder(Path(out))
    own = _suite(model, data, suite, preprocessing)
    selection, final = _subjects(own, data, suite, weights, reporter)
    folder = Path(out) if out else results / "advice" / selection.network.name
    check_folder(folder)
    options = RunOptions(
        store,
        _Silent(limit.watch),
        skip_bad_images=skip_bad_images,
        training=TrainingOptions(device, checkpoint_minutes, reporter.say),
    )

    def measure(cell: Cell) -> Record:
        there = measured_elsewhere(elsewhere, own, weights, cell, reporter) if elsewhere else None
        (record,) = run([cell], options, there).records
        return record

    search = Search(
        selection,
        final,
        Goal(max_drop=max_drop, min_ratio=min_ratio, eight_bits=eight_bits and form is MLPACKAGE),
        measure=measure,
        fitted=lambda config: _fitted(config, selection),
        latencies=latencies(results, "coreml" if form is MLPACKAGE else "coreai"),
        package_format=form,
        budget=limit,
        say=reporter.say,
    )
    if elsewhere is None:
        tell_if_busy(reporter.say)
    advice = search.run()
    package, yaml = _package(search, advice, store)
    write_advice(folder, advice, search.attempts, selection, form, package, yaml)
    return advice


class _Silent(Reporter):
    """Bars alone: what a run says of each cell, the decisions say in other words."""

    def say(self, line: str) -> None:
        pass


def _suite(model: str, spec: str, suite: str, preprocessing: Preprocessing | None) -> Suite:
    """The suite that is named, with this network and these images in place of its own, and no configs."""
    given = load_suite(suite, keeping=())
    if given.packages:
        raise BenchError(f"--suite {suite} measures packages as they are; expected one that builds networks")
    own = given.model_copy(update={"models": (get_network(model).spec,), "data": {DEFAULT_DATA: spec}, "configs": ()})
    return own.model_copy(update={"preprocessing": preprocessing}) if preprocessing else own


def _subjects(own: Suite, spec: str, suite: str, weights: Path | None, reporter: Reporter) -> tuple[Subject, Subject]:
    """The network on the images to choose by, and on those that judge."""
    (cell,) = lay_out(own, weights, say=reporter.say)
    _check_classes(cell.subject, spec, suite)
    whole = cell.subject.data
    selection, final = (replace(cell.subject, suite="advise", data=part_of(whole, part)) for part in PARTS)
    splits = [split for split in (whole.train, selection.data.val, final.data.val) if split]
    with reporter.steps(f"reading {spec}", len(splits)) as steps:
        for split in splits:
            split.compute_fingerprint(steps.within(split.name))
            steps.advance()
    return selection, final


def _check_classes(subject: Subject, spec: str, suite: str) -> None:
    """Raises BenchError where the data needs a new head and nothing says how it is trained."""
    if not subject.pretrained or subject.training is not None:
        return
    state = load_pretrained(subject.network, subject.weights_folder)
    try:
        classes = head_classes(subject.network, state, subject.data.image_size)
    except CellFailedError as error:  # there is nothing to search among
        raise BenchError(str(error)) from error
    if head_rows(subject.data.classes, classes) is None:
        raise BenchError(
            f"{spec} has {len(subject.data.classes)} classes, the weights of {subject.network.name} {classes}; name a "
            f"suite with a [training] table with --suite, which {suite} does not have"
        )


def _fitted(config: PruningConfig, subject: Subject) -> PruningConfig:
    if config.pattern is None:
        return config
    data = subject.data
    return fitted_to(
        config, subject.network, untrained_model(subject.network, len(data.classes), image_size=data.image_size)
    )


def latencies(results: Path, runtime: RuntimeName = "coreml") -> dict[str, float]:
    """Median milliseconds in Apple's runtime by the SHA-256 of a package, as far as the results folder knows."""
    measured = [r for r in read_latency_records(results) if r.status == "measured" and r.runtime.name == runtime]
    if not measured:
        return {}
    # Of several devices or compute units, one: medians of others say nothing beside it.
    newest = max(measured, key=lambda record: record.provenance.created)
    alike = [
        r
        for r in measured
        if (r.device.name, r.runtime, r.protocol) == (newest.device.name, newest.runtime, newest.protocol)
    ]
    return {record.package.sha256: median_ms(record) for record in alike}


def _package(search: Search, advice: Advice, store: Store) -> tuple[Path | None, dict[str, str]]:
    """The package that was chosen, or comes closest, and its config for Core ML Tools."""
    if advice.best is None:
        return None, {}
    attempt = search.attempts[advice.best]
    built = Builder(store, lambda what, done, total: None).build(search.cell_of(attempt.config))
    images = advice.training_images - len(built.made.train_skipped)
    return built.path, coremltools_yaml(attempt.config, built.made.targets, images)
