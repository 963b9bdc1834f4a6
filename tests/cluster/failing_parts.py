"""As a worker's preload: at the second part of its images one cell fails by itself, and another ends its worker."""

import os
import time

from coreml_prune_bench.cluster import divided
from coreml_prune_bench.core.errors import CellFailedError
from tests import tiny_network  # noqa: F401

_evaluate_cell = divided.evaluate_cell
WHY = "its second part is too much for it"


def evaluate_cell(cell, package, options, steps, part):
    if part.start and cell.sparsity == 0.5:
        raise CellFailedError(WHY)
    if part.start and cell.sparsity == 0.75:
        time.sleep(1)  # so that it is heard where it ends
        os._exit(1)
    return _evaluate_cell(cell, package, options, steps, part)


def dask_setup(worker: object) -> None:
    """Called by Dask in a worker that has this module as its preload."""
    divided.evaluate_cell = evaluate_cell
