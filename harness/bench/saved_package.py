"""The package behind a record: where it lies, and a copy of it for an app."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from coreml_prune_bench.bench.app import AppContent, told_of
from coreml_prune_bench.bench.app_package import save_for_app
from coreml_prune_bench.bench.formats.protocol import get_format
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.escaping import one_line
from coreml_prune_bench.core.files import refuse_folder, tree_hash
from coreml_prune_bench.models.weights_licence import licence_of
from coreml_prune_bench.records.accuracy import GIVEN, Record
from coreml_prune_bench.records.mirror import Mirror

_FROM_SCRATCH = ("none", "as published", GIVEN)
"""What is said of weights in place of which pre-trained ones they are."""


def package_of(record: Record, results: Path) -> Path:
    """The package that was measured, below the results folder. Raises BenchError where it is not there any more."""
    measured = record.package
    if measured is None:
        raise BenchError(f"{record.network.name}, {record.config} failed: it has no package")
    if record.network.weights == GIVEN:
        raise BenchError(f"{record.network.name}, {record.config} was measured where it lay; no copy of it is kept")
    name = f"{record.network.name}{get_format(record.package_format).suffix}"
    noted = [results / measured.path] if measured.path else []
    if noted and not noted[0].exists() and (mirror := Mirror.of(results)):
        mirror.fetch_artifact(noted[0].parent)
    others = sorted((results / "artifacts").glob(f"*/{name}"))  # records of a version that did not note it
    for path in (*noted, *others):
        if path.is_dir() and tree_hash(path) == measured.sha256:
            return path
    raise BenchError(
        f"the package of {record.network.name}, {record.config} is not in {results / 'artifacts'}: "
        f"`build --suite {record.suite}` makes it again"
    )


def save_package(
    record: Record, results: Path, out: Path, content: AppContent, say: Callable[[str], None] = lambda line: None
) -> None:
    """Copy the package of a record to `out`, with what `content` says, and what the record says among its metadata.

    Raises BenchError where `out` is there already or has another suffix, and where labels do not fit.
    """
    package = package_of(record, results)
    if out.suffix != package.suffix:
        raise BenchError(f"{out}: expected a name that ends in {package.suffix}, as {package.name} does")
    if os.path.lexists(out):
        raise BenchError(f"{out} is there already; give another name")
    refuse_folder(out.parent, str(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.stem}.tmp{out.suffix}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        save_for_app(package, unfinished, content, _told(record))
        os.replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if "license" not in content.texts and (terms := licence_of(record.network.weights)):
        say(f"{out}: {terms}")


def _told(record: Record) -> dict[str, str]:
    pruning, network, predictions = record.pruning, record.network, record.predictions
    weights = None if network.weights in _FROM_SCRATCH else network.weights
    told = told_of(network.title, pruning.title, pruning.config, pruning.sparsity, weights, pruning.scope)
    if predictions is not None:
        told |= {
            "top1": f"{100 * predictions.top1:.2f} %",
            "top5": f"{100 * predictions.top5_accuracy:.2f} %",
            "images": f"{len(predictions.labels)}",
            "data": _data_named(record.data.spec),
            "measured_with": record.runtime.name if record.runtime else "",
        }
    return told


def _data_named(spec: str) -> str:
    """A data set without the folders that it lies in, which are nobody's business."""
    kind, separator, place = one_line(spec).partition(":")
    return f"{kind}{separator}{Path(place).name}" if Path(place).is_absolute() else spec
