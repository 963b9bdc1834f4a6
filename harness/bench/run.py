"""Run the cells of a suite: build what is not built, measure what is not measured, record each cell at once."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from coreml_prune_bench.bench.build.last_made import Shared
from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.bench.contention import tell_if_busy
from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.bench.staleness import what_is_missing
from coreml_prune_bench.bench.training_options import TrainingOptions
from coreml_prune_bench.core.errors import BenchError, CellFailedError, PackageError
from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.core.progress import Reporter, Steps
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.records.accuracy import Data, Layer, Network, Package, Pruning, Record
from coreml_prune_bench.records.predictions import Predictions
from coreml_prune_bench.records.provenance import provenance
from coreml_prune_bench.records.store import Store

if TYPE_CHECKING:
    from coreml_prune_bench.bench.build.manifest import Built
    from coreml_prune_bench.mlprogram.summary import PackageSummary

_STOPS_THE_RUN = (BenchError, ModuleNotFoundError, OSError, MemoryError)
"""The user's to mend, and in the way of other cells too. Anything else is one cell's failure and costs only that."""


@dataclass(frozen=True)
class RunOptions:
    """How cells are built and measured; none of it is part of what is measured.

    skip_bad_images: those that do not decode are left out. image_cache: prepared images are kept for the next pass.
    """

    store: Store
    reporter: Reporter = field(default_factory=Reporter)
    skip_bad_images: bool = False
    image_cache: bool = True
    training: TrainingOptions = field(default_factory=TrainingOptions)
    shared: Shared = field(default_factory=Shared)


@dataclass(frozen=True)
class Outcome:
    """records: one a cell, in the suite's order. measured: how many of them are new."""

    records: list[Record]
    measured: int

    @property
    def failed(self) -> list[Record]:
        return [record for record in self.records if record.status == "failed"]


@dataclass(frozen=True)
class Measured:
    """A cell with its record. new: it was measured now. where: by which machine, if not by this one."""

    cell: Cell
    record: Record
    seconds: float
    new: bool = True
    where: str | None = None


Measure = Callable[[list[Cell], RunOptions, Steps], Iterator[Measured]]
"""Measures cells one after the other or many at a time, in any order."""


def run(cells: list[Cell], options: RunOptions, measure: Measure | None = None) -> Outcome:
    """Measure the cells that have no record yet. A cell that fails is recorded so, and tried again by the next run.

    A record that is damaged, or is not the one that its file's name says, is set aside and its cell measured again.
    measure: what measures; this process where it is None.

    Raises BenchError for what the user can mend, for what no layer can be pruned to before anything is built; what was
    measured before is kept.
    """
    store, reporter = options.store, options.reporter
    known = {cell.key: _known(cell, options) for cell in cells}
    missing = [cell for cell in cells if not _is_measured(known[cell.key])]
    measured = 0
    _refuse_impossible(missing)
    for line in what_is_missing(missing, store):
        reporter.say(line)
    if missing and measure is None:
        tell_if_busy(reporter.say)
    with reporter.steps("cells", len(missing)) as steps:
        for found in (measure or _measure_here)(missing, options, steps):
            cell, record = found.cell, found.record
            if found.new:
                record = store.write_record(cell.record_name, record)
                measured += 1
            known[cell.key] = record
            steps.advance()
            where = f" on {found.where}" if found.where else ""
            reporter.say(f"{_told(cell, record)} ({found.seconds:.0f} s{where})")
    # What another suite measured into the same folder is told as a row of the one that is run.
    suites = {cell.key: cell.subject.suite for cell in cells}
    records = [record.model_copy(update={"suite": suites[key]}) for key, record in known.items() if record]
    if any(record.package for record in records):
        reporter.say(f"packages in {store.packages}; `package save ROW OUT.mlpackage` copies that of a row")
    return Outcome(records, measured)


def _measure_here(cells: list[Cell], options: RunOptions, steps: Steps) -> Iterator[Measured]:
    for cell in cells:
        started = time.perf_counter()
        record = _known(cell, options)
        new = record is None or not _is_measured(record)  # else by another run on the same folder meanwhile
        if record is None or new:
            record = attempt(cell, options, steps)
        yield Measured(cell, record, time.perf_counter() - started, new)


Build = Callable[[list[Cell], RunOptions, Steps], Iterator[tuple[Cell, Exception | None]]]
"""Builds packages and keeps them in the store, in any order; tells of each cell as it ends why it has none, if so."""


def build_all(
    cells: list[Cell], options: RunOptions, build: Build | None = None
) -> tuple[list[tuple[Cell, Path]], list[str]]:
    """Build every cell's package; returns those that are there, and why others are not.

    build: what builds those that are missing; this process where it is None.
    """
    built: list[tuple[Cell, Path]] = []
    problems: list[str] = []
    _refuse_impossible(cells)
    failures: dict[str, Exception] = {}
    if build is None:
        tell_if_busy(options.reporter.say)
    else:
        missing = [cell for cell in cells if options.store.found(cell.build_key) is None]
        with options.reporter.steps("packages elsewhere", len(missing)) as steps:
            for cell, failure in build(missing, options, steps):
                if failure is not None:
                    failures[cell.build_key] = failure
                steps.advance()
    with options.reporter.steps("packages", len(cells)) as steps:
        for cell in cells:
            try:
                if failure := failures.get(cell.build_key):
                    raise failure
                folder = options.store.found(cell.build_key) if build else None
                path = folder / cell.package_name if folder else _build(cell, options, steps).path
                built.append((cell, path))
            except _STOPS_THE_RUN:
                raise
            except Exception as error:
                problems.append(f"{cell.name}: {_reason(error)}")
            steps.advance()
    return built, problems


def _refuse_impossible(cells: list[Cell]) -> None:
    asking = [cell for cell in cells if cell.config and _names_or_shapes_layers(cell.config)]
    if asking:
        from coreml_prune_bench.bench.precheck import refuse_impossible

        refuse_impossible(asking)


def _names_or_shapes_layers(config: PruningConfig) -> bool:
    """Whether it asks of layers what those of a network may not have."""
    return bool(config.pattern or config.layers or (config.scope and config.scope.exclude))


@dataclass(frozen=True)
class Evaluated:
    """What a package predicts for images, None where all of them are bad. skipped: those that are."""

    predictions: Predictions | None
    skipped: tuple[str, ...]
    seconds: float


def attempt(
    cell: Cell,
    options: RunOptions,
    steps: Steps,
    evaluated: Evaluated | None = None,
    build_seconds: float | None = None,
) -> Record:
    """Build and evaluate one cell; its failure is a record too. evaluated, build_seconds: where that is done already.

    Raises what is in the way of other cells: BenchError, and OSError and MemoryError of the machine.
    """
    try:
        return _measure(cell, options, steps, evaluated, build_seconds)
    except _STOPS_THE_RUN as error:
        # Nobody can mend a published package.
        if not cell.published or not isinstance(error, PackageError):
            raise
        return failed(cell, error)
    except Exception as error:
        return failed(cell, error)


def failed(cell: Cell, error: Exception) -> Record:
    """The record of a cell that could not be measured."""
    return _record(cell, status="failed", reason=_reason(error), provenance=provenance(), scope="")


def evaluate_cell(cell: Cell, package: Path, options: RunOptions, steps: Steps, part: range | None = None) -> Evaluated:
    """Evaluate the package of a cell. part: only the images at these positions."""
    # Here, because it imports the runtime: a run that finds everything measured does without.
    from coreml_prune_bench.accuracy.evaluate import evaluate

    started = time.perf_counter()
    predictions, skipped = evaluate(
        [package],
        cell.subject.data.val,
        cell.subject.data.preprocessing.view,
        load=cell.package_format.load(cell.evaluation),
        class_map=_class_map(cell),
        skip_bad_images=options.skip_bad_images,
        image_cache=options.image_cache,
        part=part,
        say=options.reporter.say,
        progress=lambda what, done, total: steps.update(f"{cell.name}: {what}", done, total),
    )
    return Evaluated(predictions[0] if predictions else None, skipped, time.perf_counter() - started)


def _measure(
    cell: Cell, options: RunOptions, steps: Steps, evaluated: Evaluated | None, build_seconds: float | None
) -> Record:
    started = time.perf_counter()
    steps.update(f"{cell.name}: starting", 0, 1)  # torch takes seconds to load
    built = _build(cell, options, steps)
    if build_seconds is None:
        build_seconds = time.perf_counter() - started
    if evaluated is None:
        evaluated = evaluate_cell(cell, built.path, options, steps)
    summary = cell.package_format.read(built.path)
    seconds = provenance(
        build_seconds=build_seconds,
        evaluate_seconds=evaluated.seconds,
        trained_on=built.made.devices,
        build_threads=built.made.threads,
        predict_threads=cell.evaluation.threads,
    )
    package = Package(
        sha256=tree_hash(built.path),
        weight_bytes=summary.weight_bytes,
        package_bytes=summary.package_bytes,
        whole_model_sparsity=summary.whole_model_sparsity or 0.0,
        deployment_target=summary.deployment_target,
        operations=summary.operations,
        layers=_sparse_weights(summary) if cell.published else _layers(summary, built.made.targets),
        path=None if cell.published else options.store.place_of(built.path),
    )
    return _record(
        cell,
        status="measured",
        provenance=seconds,
        scope=_scope_found(summary) if cell.published else built.made.scope,
        trained=built.made.trained,
        skipped=evaluated.skipped,
        train_skipped=built.made.train_skipped,
        package=package,
        runtime=cell.evaluation.described,
        predictions=evaluated.predictions,
        code=cell.code,
    )


def _class_map(cell: Cell) -> Mapping[str, str] | None:
    """Which of its package's labels is which class: other ones than the data's may be asked for."""
    names_them = cell.app is not None and cell.package_format is MLPACKAGE
    return cell.app.label_of(cell.subject.data.classes) if cell.app and names_them else None


def _build(cell: Cell, options: RunOptions, steps: Steps) -> "Built":
    """The cell's package, from the store, newly made, or published and then checked to be what was fetched."""
    from coreml_prune_bench.bench.build.manifest import Built, PackageManifest

    if cell.published:
        cell.published.check()
        nothing = PackageManifest(targets={}, scope="", trained=False, train_skipped=(), devices=(), threads=None)
        return Built(cell.published.path, nothing)
    from coreml_prune_bench.bench.build.builder import Builder

    def progress(what: str, done: int, total: int) -> None:
        steps.update(f"{cell.name}: {what}", done, total)

    builder = Builder(
        options.store,
        progress,
        skip_bad_images=options.skip_bad_images,
        training=options.training,
        shared=options.shared,
    )
    return builder.build(cell)


def _layers(summary: "PackageSummary", targets: Mapping[str, float | None]) -> tuple[Layer, ...]:
    weights = {layer: summary.weight_of_layer(layer) for layer in targets}
    return tuple(
        Layer(name=name, target=targets[name], sparsity=weight.sparsity or 0.0, storage=weight.storage)
        for name, weight in weights.items()
    )


def _sparse_weights(summary: "PackageSummary") -> tuple[Layer, ...]:
    """Of a package that we did not build: under the names that its weights have."""
    return tuple(
        Layer(name=weight.name, target=None, sparsity=weight.sparsity or 0.0, storage=weight.storage)
        for weight in summary.weights
        if "sparse" in weight.storage
    )


def _scope_found(summary: "PackageSummary") -> str:
    pruned, all_ = len(_sparse_weights(summary)), sum(len(weight.shape) >= 2 for weight in summary.weights)
    return f"{pruned} of {all_} weights, as found" if pruned else "none"


def _record(
    cell: Cell,
    *,
    scope: str,
    trained: bool = False,
    skipped: tuple[str, ...] = (),
    train_skipped: tuple[str, ...] = (),
    **rest: object,
) -> Record:
    subject, config = cell.subject, cell.config
    return Record.model_validate(
        {
            "key": cell.key,
            "config_key": cell.config_key,
            "subject_key": subject.key,
            "suite": subject.suite,
            "trial": cell.trial,
            "row": cell.row,
            "package_format": cell.package_format.name,
            "network": Network(
                name=subject.network.name,
                title=subject.network.title,
                weights=subject.weights_fingerprint,
                trained=trained,
                spec=subject.network.own.spec if subject.network.own else None,
            ),
            "pruning": Pruning(
                algorithm=cell.algorithm,
                title=cell.algorithm_title,
                config=cell.config_name,
                sparsity=cell.sparsity,
                scope=scope,
                settings=_settings(cell),
            ),
            "data": Data(
                spec=subject.data.spec,
                split=subject.data.val.name,
                fingerprint=subject.data.val.fingerprint,
                train_fingerprint=subject.train_fingerprint if config and config.needs_data else None,
                classes=len(subject.data.classes),
                image_size=subject.data.image_size,
                preprocessing=subject.data.preprocessing,
                skipped=skipped,
                train_skipped=train_skipped,
                revision=subject.data.revision,
                place=subject.data.place,
            ),
            **rest,
        }
    )


def _settings(cell: Cell) -> dict[str, object]:
    if cell.published:
        return {"package_url": cell.published.row.package_url}
    return cell.config.model_dump(mode="json") if cell.config else {}


def _known(cell: Cell, options: RunOptions) -> Record | None:
    return options.store.record_of(cell.record_name, partial(why_not, cell), options.reporter.warn)


def why_not(cell: Cell, record: Record) -> str | None:
    """Why a record is not the cell's: its file was copied, or changed by hand."""
    asked = (cell.key, cell.config_key, cell.subject.key, cell.trial)
    if (record.key, record.config_key, record.subject_key, record.trial) != asked:
        return "holds the record of another cell"
    images = len(cell.subject.data.val)
    if record.predictions and len(record.predictions.labels) + len(record.data.skipped) != images:
        return f"has predictions of {len(record.predictions.labels):,} images, not of the {images:,} that there are"
    return None


def _is_measured(record: Record | None) -> bool:
    return record is not None and record.status == "measured"


def _told(cell: Cell, record: Record) -> str:
    if record.predictions is None:
        return f"{cell.name}: FAILED: {record.brief_reason}"
    return f"{cell.name}: top-1 {100 * record.predictions.top1:.2f} %"


def _reason(error: Exception) -> str:
    """What the user is told first, then the traceback for whoever mends it."""
    if isinstance(error, CellFailedError | BenchError):
        return str(error)
    return f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}"
