"""What a run is about to measure, and why: said before it takes hours."""

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta

from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.core.keys import PACKAGE
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.store import Store

_MODULES_NAMED = 5


def what_is_missing(missing: list[Cell], store: Store) -> list[str]:
    """Lines on those of the cells that are stale: how many, what changed since, and how long they took; else none.

    A cell is stale where the folder holds a measurement of the same name under another key. The time is that which
    these took before, builds among it, on whatever machine that was.
    """
    stale = [(cell, record) for cell in missing if (record := _measured_before(cell, store)) is not None]
    lines = []
    if stale:
        lines.append(f"{len(stale)} of {len(missing)} cells to measure are stale: measured before, and changed since:")
        reasons = Counter(_reason(cell, record) for cell, record in stale)
        lines += [f"  {count} x {reason}" for reason, count in reasons.most_common()]
        seconds = sum(_seconds(record) for _, record in stale)
        lines.append(f"  before, they took {timedelta(seconds=round(seconds))} in all")
    return lines


def _measured_before(cell: Cell, store: Store) -> Record | None:
    """The newest record of the same name; long configs may share the name of a file, so the config is compared."""
    found = (record for record in store.records(cell.record_stem) if record.pruning.config == cell.config_name)
    measured = [record for record in found if record.status == "measured"]
    return max(measured, key=lambda record: record.provenance.created, default=None)


def _reason(cell: Cell, record: Record) -> str:
    """What changed, in words."""
    if not record.code:
        return "a version of this project that did not say which code it ran"
    now = cell.code
    modules = sorted(module for module in now.keys() | record.code if now.get(module) != record.code.get(module))
    changed = []
    if modules:
        changed.append(f"code: {_listed(modules)}")
    if record.data.fingerprint != cell.subject.data.val.fingerprint:
        changed.append("the images")
    trained_on = cell.subject.train_fingerprint if cell.config and cell.config.needs_data else None
    if record.data.train_fingerprint != trained_on:
        changed.append("the training images")
    if record.network.weights != cell.subject.weights_fingerprint:
        changed.append("the weights")
    return " and ".join(changed) or "the config, image size, training or an installed package"


def _listed(modules: list[str]) -> str:
    named = [module.removeprefix(f"{PACKAGE}.") for module in modules[:_MODULES_NAMED]]
    more = len(modules) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _seconds(record: Record) -> float:
    taken: Iterable[float | None] = (record.provenance.build_seconds, record.provenance.evaluate_seconds)
    return sum(seconds or 0.0 for seconds in taken)
