"""Cells that cost nothing to build and to measure, with packages and records of the size that real ones have.

As a worker's preload. What is in a package is random, so that nothing on the way makes it smaller.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.bench.run import RunOptions
from coreml_prune_bench.cluster import tasks
from coreml_prune_bench.core.progress import Steps
from coreml_prune_bench.records.accuracy import Record, read_records
from tests.cluster.trivial import record_of

_KNOWN = Path(__file__).parents[2] / "results" / "imagenet-sample"


@cache
def package_bytes() -> dict[tuple[str, float], int]:
    """By network and sparsity, of the packages that were built for the suite `imagenet`."""
    return {
        (record.network.name, record.pruning.sparsity or 0): record.package.package_bytes
        for record in read_records(_KNOWN)
        if record.package
    }


def size_of(cell: Cell) -> int:
    return package_bytes()[cell.subject.network.name, (cell.config and cell.config.sparsity) or 0]


def attempt(cell: Cell, options: RunOptions, steps: Steps) -> Record:
    _build(cell, options)
    return record_of(cell)


def made(cell: Cell, part: tasks.Part, options: RunOptions, order: tasks.Order, teller: object) -> str:
    assert part == "package", "the suite trains no network and allocates nothing"
    _build(cell, options)
    return cell.build_key


def _build(cell: Cell, options: RunOptions) -> None:
    def fill(folder: Path) -> dict[str, Any]:
        (folder / "weights").write_bytes(os.urandom(size_of(cell)))
        return {}

    options.store.artifact(cell.build_key, fill)


def dask_setup(worker: object) -> None:
    """Called by Dask in a worker that has this module as its preload."""
    tasks.attempt = attempt
    tasks.made_part = made
