"""Cells that cost nothing to build and to measure: what is left is what a run costs itself.

As a worker's preload, for what runs there; in this process by `attempt` in place of the run's own.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.bench.run import RunOptions
from coreml_prune_bench.cluster import tasks
from coreml_prune_bench.core.progress import Steps
from coreml_prune_bench.records.accuracy import Record, read_record
from tests import tiny_network  # noqa: F401

RECORD = "TEST_TRIVIAL_RECORD"
"""The variable that names the file of a record, which every cell gets."""
PACKAGE_BYTES = 20_000
"""About those of the tiny network's package."""


def attempt(cell: Cell, options: RunOptions, steps: Steps) -> Record:
    options.store.artifact(cell.build_key, _fill)
    return record_of(cell)


def record_of(cell: Cell) -> Record:
    """The one that every cell gets, under the cell's keys."""
    keys = {"key": cell.key, "config_key": cell.config_key, "subject_key": cell.subject.key, "trial": cell.trial}
    return _record().model_copy(update=keys)


@cache
def _record() -> Record:
    return read_record(Path(os.environ[RECORD]))


def _fill(folder: Path) -> dict[str, Any]:
    (folder / "weights").write_bytes(bytes(PACKAGE_BYTES))
    return {}


def dask_setup(worker: object) -> None:
    """Called by Dask in a worker that has this module as its preload."""
    tasks.attempt = attempt
