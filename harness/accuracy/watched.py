"""Apple's runtimes in a process of their own, for what predicts many images: one that hangs or dies costs a package.

As `latency` does for Core ML: coremltools holds Python's lock while Core ML predicts, and Core ML's compiler writes
to standard output, which is for tables.
"""

import functools
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.latency.worker import START_LIMIT_SECONDS, GoneError, StepFailedError, Worker
from coreml_prune_bench.mlprogram.program import Feature
from coreml_prune_bench.runtimes.protocol import Load, RuntimeName, loader

BATCH_LIMIT_SECONDS = 900.0
"""For one batch, or a load: specializing a large network for the Neural Engine can take minutes."""


def watched_loader(runtime: RuntimeName, **options: Any) -> Load:
    """`loader` of runtimes.protocol, with Core ML and Core AI in a process of its own."""
    load = loader(runtime, **options)
    if runtime == "portable":
        return load
    return functools.partial(WatchedModel, load, called="Core ML" if runtime == "coreml" else "Core AI")


class WatchedModel:
    """A package that another process predicts with; a `BatchModel`. Raises PackageError for all that goes wrong.

    called: what predicts there, for errors.
    """

    def __init__(
        self, load: Load, package: Path, *, limit_s: float = BATCH_LIMIT_SECONDS, called: str = "Core ML"
    ) -> None:
        self._package, self._limit_s, self._called = package, limit_s, called
        self._worker = Worker(functools.partial(_Served, load, package))
        self._finalizer = weakref.finalize(self, self._worker.kill)
        self._received(START_LIMIT_SECONDS)
        described = self._ask("describe")
        self.inputs: tuple[Feature, ...] = described[0]
        self.outputs: tuple[Feature, ...] = described[1]
        self.classes: tuple[str | int, ...] | None = described[2]

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.outputs)

    def predict_batch(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        results: dict[str, np.ndarray] = self._ask("predict_batch", dict(inputs))
        return results

    def _ask(self, step: str, *arguments: Any) -> Any:
        self._worker.send(step, arguments)
        return self._received(self._limit_s)

    def _received(self, limit_s: float) -> Any:
        try:
            return self._worker.receive(limit_s)
        except StepFailedError as error:
            raise PackageError(str(error)) from error
        except GoneError as error:
            self._finalizer()
            raise PackageError(f"{self._package}: {self._called}'s process: {error}") from error


class _Served:
    """In the process."""

    def __init__(self, load: Load, package: Path, alive: Callable[[], None]) -> None:
        self._model = load(package)

    def describe(self) -> tuple[tuple[Feature, ...], tuple[Feature, ...], tuple[str | int, ...] | None]:
        return self._model.inputs, self._model.outputs, self._model.classes

    def predict_batch(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._model.predict_batch(inputs)

    def close(self) -> None:
        """Nothing: it goes with the process."""
