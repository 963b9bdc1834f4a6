"""A package of either format, read."""

from __future__ import annotations

from pathlib import Path

from coreml_prune_bench.aimodel import reader
from coreml_prune_bench.mlprogram.program import Program
from coreml_prune_bench.mlprogram.reader import read as read_ml_program
from coreml_prune_bench.mlprogram.summary import PackageSummary, summarize


def read_program(path: str | Path, function: str | None = None) -> Program:
    """A function (None: the default one) of the `.mlpackage` or `.aimodel` at `path`. Raises PackageError."""
    return reader.read(path, function) if reader.is_aimodel(path) else read_ml_program(path, function)


def read_package(path: str | Path) -> PackageSummary:
    """What the `.mlpackage` or `.aimodel` at `path` holds. Raises PackageError where it cannot be read."""
    return summarize(read_program(path))
