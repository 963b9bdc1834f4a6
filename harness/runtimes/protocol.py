"""The runtimes behind one protocol, and the choice between them. Imports neither until one is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from coreml_prune_bench.core.errors import BenchError

if TYPE_CHECKING:
    import numpy as np

    from coreml_prune_bench.mlprogram.program import Feature
    from coreml_prune_bench.records.predictions import Precision

RuntimeName = Literal["portable", "coreml", "coreai"]
MLPackageRuntime = Literal["portable", "coreml"]
"""Those that run a `.mlpackage`, which is what suites and latencies are measured of."""

COMPUTE_UNITS = ("all", "cpu_and_ne", "cpu_and_gpu", "cpu_only")
"""Core ML's choices, and what Core AI's are called. `cpu_and_ne` leaves out the GPU; neither it nor `all` forces an
operation to the Neural Engine."""


class BatchModel(Protocol):
    """A loaded package that takes N samples, stacked, and gives N results, stacked. See portable's `Model`."""

    @property
    def inputs(self) -> tuple[Feature, ...]: ...

    @property
    def outputs(self) -> tuple[Feature, ...]: ...

    @property
    def output_names(self) -> tuple[str, ...]: ...

    @property
    def classes(self) -> tuple[str | int, ...] | None: ...

    def predict_batch(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...


Load = Callable[[Path], BatchModel]
"""Loads a package; raises PackageError where the runtime cannot."""


def loader(runtime: RuntimeName, *, precision: Precision = "float32", compute_units: str = "all") -> Load:
    """precision is the portable runtime's, compute_units are Core ML's and Core AI's.

    Raises CoreMLMissingError without Core ML, BenchError without Core AI or for unknown compute units.
    """
    if runtime == "portable":
        from coreml_prune_bench.runtimes import portable

        return partial(portable.load, precision=precision, many=True)
    if compute_units not in COMPUTE_UNITS:
        raise BenchError(f"--compute-units {compute_units!r}: expected one of {', '.join(COMPUTE_UNITS)}")
    if runtime == "coreai":
        from coreml_prune_bench.runtimes import coreai

        return partial(coreai.Model, compute_units=coreai.units_here(compute_units))
    from coreml_prune_bench.runtimes import coreml

    coreml.require_available()
    return partial(coreml.Model, compute_units=compute_units)
