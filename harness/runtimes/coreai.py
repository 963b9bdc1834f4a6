"""Core AI itself: Apple's runtime, on the processor of Linux and Macs, and on the compute units of a Mac with macOS 27.

What shaped this back end:

- The package `coreai-core` holds a runtime for the processor, which is slow (a second an image) and the referee for
  what the portable runtime computes. On a Mac with macOS 27 it calls the system's own, unless USE_LOCAL_COREAI is set
  before Python starts; that one specializes a program for compute units. That road has been run on no Mac yet.
- Its calls are coroutines: one event loop and one loaded function serve all predictions.
- It answers as the portable runtime's `Model` does, so that what evaluates the one evaluates the other.

It must import coreai only when a function is called.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.aimodel.process import require_coreai
from coreml_prune_bench.aimodel.programs import is_core_ai, read_program
from coreml_prune_bench.core.errors import BenchError, PackageError
from coreml_prune_bench.mlprogram.program import Feature

CPU_ONLY = "cpu_only"


def units_here(compute_units: str) -> str:
    """What of Core AI runs for that choice of compute units: `cpu_only` wherever the system's runtime is not asked.

    Raises BenchError for units that are not here, or where coreai-core is not installed.
    """
    require_coreai()
    from coreai.runtime import SpecializationOptions

    if SpecializationOptions.is_supported():
        return compute_units
    if compute_units not in ("all", CPU_ONLY):
        raise BenchError(
            f"--compute-units {compute_units}: Core AI has the processor alone here, {CPU_ONLY}; others take macOS 27"
        )
    return CPU_ONLY


def all_units_here(asked: Sequence[str], everything: Sequence[str]) -> list[str]:
    """What runs for these choices, each once; for none, for `everything`, or the processor where it is alone.

    Raises BenchError as `units_here` does.
    """
    if not asked:
        asked = everything if units_here("all") != CPU_ONLY else [CPU_ONLY]
    return list(dict.fromkeys(map(units_here, asked)))


class Model:
    """A `.aimodel` that Apple's runtime predicts with; a `BatchModel`. Inputs and outputs are the portable runtime's.

    load_ns: what Core AI took to load it. Raises PackageError where it is none, or Core AI does not load it.
    """

    def __init__(self, package: str | Path, *, compute_units: str = "all") -> None:
        self.package = Path(package)
        if not is_core_ai(self.package):
            raise PackageError(f"{self.package}: Core AI runs a .aimodel, which this is not")
        program = read_program(self.package)
        self.inputs, self.outputs = program.inputs, program.outputs
        self.classes: tuple[str | int, ...] | None = None
        self._loop = asyncio.new_event_loop()
        self._open = AsyncExitStack()
        self._finalizer = weakref.finalize(self, _closed, self._loop, self._open)
        try:
            started = time.perf_counter_ns()
            loading = _loaded(self._open, self.package, units_here(compute_units))
            self._function = self._loop.run_until_complete(loading).load_function(program.function)
            self.load_ns = time.perf_counter_ns() - started
        except (RuntimeError, KeyError, OSError) as error:
            raise PackageError(f"{self.package}: Core AI does not load it: {_said(error)}") from error
        # By position: a name may have been changed where an ML program's cannot have it.
        described = self._function.desc
        self._given = dict(zip((feature.name for feature in self.inputs), described.input_names, strict=True))
        self._made = dict(zip((feature.name for feature in self.outputs), described.output_names, strict=True))

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.outputs)

    def predict_batch(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """N samples, one after the other: uint8 [N, H, W, 3] for an image, [N, ...] for an array declared as [1, ...].

        Results are stacked, those of Float16 as Float32. Raises PackageError where Core AI refuses.
        """
        given = {feature.name: _as_declared(feature, inputs[feature.name]) for feature in self.inputs}
        results = [self.predict(dict(zip(given, row, strict=True))) for row in zip(*given.values(), strict=True)]
        return {feature.name: _stacked([one[feature.name] for one in results]) for feature in self.outputs}

    def predict(self, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One sample, in the shapes and element types that the program declares, and its results as they are.

        Raises PackageError where Core AI refuses.
        """
        try:
            return self._loop.run_until_complete(self._predicted(sample))
        except RuntimeError as error:
            raise PackageError(f"{self.package}: Core AI cannot predict: {_said(error)}") from error

    async def _predicted(self, sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        from coreai.runtime import NDArray

        made = await self._function({self._given[name]: NDArray(array) for name, array in sample.items()})
        return {name: made[theirs].numpy() for name, theirs in self._made.items()}


async def _loaded(stack: AsyncExitStack, package: Path, compute_units: str) -> Any:
    """The model, as long as `stack` is open."""
    from coreai.authoring import AIModelAsset
    from coreai.runtime import AIModel, SpecializationOptions

    if not SpecializationOptions.is_supported():
        return await stack.enter_async_context(AIModelAsset.load(package).executable())
    return await AIModel.load(package, _specialized(compute_units))


def _specialized(compute_units: str) -> Any:
    """Core AI has a preferred unit where Core ML has allowed ones; the processor is always among them."""
    from coreai.runtime import ComputeUnitKind, SpecializationOptions

    match compute_units:
        case "cpu_only":
            return SpecializationOptions.cpu_only()
        case "cpu_and_gpu":
            return SpecializationOptions.from_preferred_compute_unit_kind(ComputeUnitKind.gpu())
        case "cpu_and_ne":
            return SpecializationOptions.from_preferred_compute_unit_kind(ComputeUnitKind.neural_engine())
    return SpecializationOptions.default()


def _closed(loop: asyncio.AbstractEventLoop, stack: AsyncExitStack) -> None:
    loop.run_until_complete(stack.aclose())
    loop.close()


def _as_declared(feature: Feature, batch: np.ndarray) -> list[np.ndarray]:
    """Each sample in the shape and element type of the program's input: of an image uint8 [1, 3, H, W]."""
    if feature.kind == "image":
        batch = batch.transpose(0, 3, 1, 2)
    leads_with_one = len(feature.shape) == batch.ndim and feature.shape[0] == 1
    samples = (sample[np.newaxis] if leads_with_one or feature.kind == "image" else sample for sample in batch)
    return [np.ascontiguousarray(sample, feature.dtype) for sample in samples]


def _stacked(arrays: list[np.ndarray]) -> np.ndarray:
    stacked = np.concatenate(arrays) if arrays[0].shape[:1] == (1,) else np.stack(arrays)
    return stacked.astype(np.float32) if stacked.dtype == np.float16 else stacked


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())
