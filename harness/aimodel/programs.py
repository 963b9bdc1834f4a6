"""A package of either format, read."""

from __future__ import annotations

from pathlib import Path

from coreml_prune_bench.aimodel import reader
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.named import AIMODEL, MLPACKAGE, is_aimodel, is_mlpackage
from coreml_prune_bench.mlprogram.program import Program
from coreml_prune_bench.mlprogram.reader import read as read_ml_program
from coreml_prune_bench.mlprogram.summary import PackageSummary, summarize


def is_core_ai(path: str | Path) -> bool:
    """Whether the package is a `.aimodel`, by what its folder holds: what holds neither format is none.

    Raises PackageError where it is called a package of the other format: Apple's frameworks go by the name.
    """
    package = Path(path)
    holds = AIMODEL if is_aimodel(package) else MLPACKAGE if is_mlpackage(package) else None
    if holds and package.suffix in {AIMODEL, MLPACKAGE} - {holds}:
        raise PackageError(
            f"{package}: is called a {package.suffix}, but holds a {holds}: call it {package.stem}{holds}"
        )
    return holds == AIMODEL


def read_program(path: str | Path, function: str | None = None) -> Program:
    """A function (None: the default one) of the `.mlpackage` or `.aimodel` at `path`. Raises PackageError."""
    return reader.read(path, function) if is_core_ai(path) else read_ml_program(path, function)


def read_package(path: str | Path) -> PackageSummary:
    """Summarize the `.mlpackage` or `.aimodel` at `path`. Raises PackageError where it cannot be read."""
    return summarize(read_program(path))
