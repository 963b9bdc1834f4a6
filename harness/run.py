"""Run the cells of a suite: build what is not built, measure what is not measured, record each cell at once."""

import re
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cells import Cell
from harness.errors import BenchError
from harness.keys import key_of
from harness.progress import Reporter, Steps
from harness.provenance import provenance
from harness.records import Data, Layer, Network, Package, Pruning, Record, Runtime
from harness.store import Store, tree_hashes

if TYPE_CHECKING:
    from harness.build import Builder

_STOPS_THE_RUN = (BenchError, OSError, MemoryError)
"""The user's to mend, and in the way of other cells too. Anything else is one cell's failure and costs only that."""


@dataclass(frozen=True)
class Outcome:
    """records: one a cell, in the suite's order. measured: how many of them are new."""

    records: list[Record]
    measured: int

    @property
    def failed(self) -> list[Record]:
        return [record for record in self.records if record.status == "failed"]


def run(cells: list[Cell], store: Store, reporter: Reporter, *, skip_bad_images: bool = False) -> Outcome:
    """Measure the cells that have no record yet. A cell that fails is recorded so, and tried again by the next run.

    Raises BenchError for what the user can mend; what was measured before is kept.
    """
    known = {cell.key: store.record(_record_name(cell)) for cell in cells}
    missing = [cell for cell in cells if not _is_measured(known[cell.key])]
    with reporter.steps("cells", len(missing)) as steps:
        for cell in missing:
            started = time.perf_counter()
            record = _attempt(cell, store, steps, skip_bad_images)
            store.write_record(_record_name(cell), record)
            known[cell.key] = record
            steps.advance()
            reporter.say(f"{_told(cell, record)} ({time.perf_counter() - started:.0f} s)")
    return Outcome([record for record in known.values() if record], len(missing))


def build_all(
    cells: list[Cell], store: Store, reporter: Reporter, *, skip_bad_images: bool = False
) -> tuple[list[tuple[Cell, Path]], list[str]]:
    """Build every cell's package; returns those that are there, and why others are not."""
    built: list[tuple[Cell, Path]] = []
    problems: list[str] = []
    with reporter.steps("packages", len(cells)) as steps:
        for cell in cells:
            try:
                built.append((cell, _builder(cell, store, steps, skip_bad_images).build(cell).path))
            except _STOPS_THE_RUN:
                raise
            except Exception as error:
                problems.append(f"{cell.name}: {_reason(error)}")
            steps.advance()
    return built, problems


def _attempt(cell: Cell, store: Store, steps: Steps, skip_bad_images: bool) -> Record:
    try:
        return _measure(cell, store, steps, skip_bad_images)
    except _STOPS_THE_RUN:
        raise
    except Exception as error:
        return _record(cell, status="failed", reason=_reason(error), provenance=provenance(), scope="")


def _measure(cell: Cell, store: Store, steps: Steps, skip_bad_images: bool) -> Record:
    # Here, because they import torch and coremltools: a run that finds everything measured does without.
    from harness.accuracy import evaluate
    from harness.package import read_package

    started = time.perf_counter()
    built = _builder(cell, store, steps, skip_bad_images).build(cell)
    build_seconds = time.perf_counter() - started
    started = time.perf_counter()
    predictions, skipped = evaluate(
        built.path,
        cell.subject.data.val,
        skip_bad_images=skip_bad_images,
        progress=steps.within(f"{cell.name}: evaluating"),
    )
    summary = read_package(built.path)
    weights = {layer: summary.weight_of_layer(layer) for layer in built.targets}
    seconds = provenance(build_seconds=build_seconds, evaluate_seconds=time.perf_counter() - started)
    package = Package(
        sha256=key_of(dict(tree_hashes(built.path))),
        weight_bytes=summary.weight_bytes,
        package_bytes=summary.package_bytes,
        whole_model_sparsity=summary.whole_model_sparsity or 0.0,
        deployment_target=summary.deployment_target,
        operations=summary.operations,
        layers=tuple(
            Layer(name=name, target=built.targets[name], sparsity=weight.sparsity or 0.0, storage=weight.storage)
            for name, weight in weights.items()
        ),
    )
    runtime = Runtime(
        name="portable",
        version=f"onnxruntime {seconds.packages['onnxruntime']}",
        precision="float32",
        compute_units="cpu",
    )
    return _record(
        cell,
        status="measured",
        provenance=seconds,
        scope=built.scope,
        trained=built.trained,
        skipped=skipped,
        train_skipped=built.train_skipped,
        package=package,
        runtime=runtime,
        predictions=predictions,
    )


def _builder(cell: Cell, store: Store, steps: Steps, skip_bad_images: bool) -> "Builder":
    from harness.build import Builder

    def progress(what: str, done: int, total: int) -> None:
        steps.update(f"{cell.name}: {what}", done, total)

    return Builder(store, progress, skip_bad_images=skip_bad_images)


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
            "network": Network(
                name=subject.network.name,
                title=subject.network.title,
                weights=subject.weights_fingerprint,
                trained=trained,
            ),
            "pruning": Pruning(
                algorithm=cell.algorithm,
                title=config.title if config else "n/a",
                config=config.name if config else "Float16",
                sparsity=config.sparsity if config else 0.0,
                scope=scope,
                settings=config.model_dump(mode="json") if config else {},
            ),
            "data": Data(
                spec=subject.data.spec,
                split=subject.data.val.name,
                fingerprint=subject.data.val.fingerprint,
                train_fingerprint=subject.train_fingerprint if config and config.needs_data else None,
                classes=len(subject.data.classes),
                image_size=subject.data.image_size,
                skipped=skipped,
                train_skipped=train_skipped,
            ),
            **rest,
        }
    )


def _record_name(cell: Cell) -> str:
    """Readable, and different for every key."""
    label = re.sub(r"[^a-z0-9]+", "-", (cell.config.name if cell.config else "float16").lower()).strip("-")
    parts = [cell.subject.network.name, cell.algorithm, label[:60], f"trial{cell.trial + 1}", cell.key[:12]]
    return "--".join(parts)


def _is_measured(record: Record | None) -> bool:
    return record is not None and record.status == "measured"


def _told(cell: Cell, record: Record) -> str:
    if record.predictions is None:
        return f"{cell.name}: FAILED: {(record.reason or '').splitlines()[0]}"
    return f"{cell.name}: top-1 {100 * record.predictions.top1:.2f} %"


def _reason(error: Exception) -> str:
    """What the user is told first, then the traceback for whoever mends it."""
    from harness.verify import CellFailedError

    if isinstance(error, CellFailedError):
        return str(error)
    return f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}"
