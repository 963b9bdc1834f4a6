"""What a worker process can time: Core ML and Core AI on this Mac, and the portable runtime on this processor.

The classes are made in the worker (they are the `OpenRuntime` that it is given), and import what they need then.
"""

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency.bench import Loaded, Opened
from coreml_prune_bench.latency.inputs import sample_arrays, sample_inputs
from coreml_prune_bench.latency.targets import Target

if TYPE_CHECKING:
    from coreml_prune_bench.records.latency import Placement
    from coreml_prune_bench.runtimes import coreai, coreml
    from coreml_prune_bench.runtimes.portable.session import Model as PortableModel


class CoreMLRuntime:
    """Core ML. Raises BenchError where it is not."""

    def __init__(self) -> None:
        from coreml_prune_bench.runtimes import coreml

        coreml.require_available()

    def open(self, target: Target) -> Opened:
        """The first load specializes the model for the device, the second finds that in the system's cache."""
        first = self._load(target)
        cold_ns = first.compiled.cold_load_ns(target.compute_units)  # its own, or that of whatever loaded it before
        del first
        cached = self._load(target)
        placed, notes = self._placement(cached, target)
        return Opened(
            model=_CoreMLLoaded(cached, target),
            compile_ns=cached.compiled.compile_ns,
            cold_load_ns=cold_ns,
            cached_load_ns=cached.load_ns,
            placement=placed,
            notes=notes,
        )

    def reopen(self, target: Target) -> Loaded:
        return _CoreMLLoaded(self._load(target), target)

    def load_ns(self, target: Target) -> int | None:
        return self._load(target).load_ns

    def close(self) -> None:
        """Nothing: what it loaded goes with the process."""

    def _load(self, target: Target) -> "coreml.Model":
        from coreml_prune_bench.runtimes import coreml

        return coreml.Model(target.path, compute_units=target.compute_units)

    def _placement(self, model: "coreml.Model", target: Target) -> "tuple[Placement | None, tuple[str, ...]]":
        from coreml_prune_bench.latency.placement import placement
        from coreml_prune_bench.runtimes import coreml

        try:
            return placement(coreml.compute_plan(model.compiled.path, target.compute_units), model.function), ()
        except RuntimeError as error:
            return None, (f"no compute plan: {coreml.said(error)}",)


class _CoreMLLoaded:
    def __init__(self, model: "coreml.Model", target: Target) -> None:
        self._model = model
        sample = sample_inputs(model.inputs)
        if model.states and target.batch_size > 1:
            raise BenchError(f"{target.path}: is stateful, which a batch is not")
        self._inputs: Any = sample if target.batch_size == 1 else [dict(sample) for _ in range(target.batch_size)]
        self._state = model.make_state() if model.states else None

    def predict(self) -> object:
        return self._model.predict(self._inputs, self._state)

    def model_ns(self) -> int | None:
        return self._model.last_predict_ns


class CoreAIRuntime:
    """Core AI: the system's runtime on a Mac with macOS 27, else Apple's for the processor."""

    def open(self, target: Target) -> Opened:
        """The first load specializes the program for the device, the second finds that in the system's cache."""
        cold_ns = self._load(target).load_ns
        cached = self._load(target)
        return Opened(_CoreAILoaded(cached, target), cold_load_ns=cold_ns, cached_load_ns=cached.load_ns)

    def reopen(self, target: Target) -> Loaded:
        return _CoreAILoaded(self._load(target), target)

    def load_ns(self, target: Target) -> int | None:
        from coreml_prune_bench.runtimes.coreai import CPU_ONLY

        return None if target.compute_units == CPU_ONLY else self._load(target).load_ns

    def close(self) -> None:
        """Nothing: what it loaded goes with the process."""

    def _load(self, target: Target) -> "coreai.Model":
        from coreml_prune_bench.runtimes import coreai

        return coreai.Model(target.path, compute_units=target.compute_units)


class _CoreAILoaded:
    def __init__(self, model: "coreai.Model", target: Target) -> None:
        if target.batch_size > 1:
            raise BenchError(f"{target.path}: Core AI predicts one sample a call: leave out --batch-size")
        self._model = model
        self._sample = sample_arrays(model.inputs)

    def predict(self) -> object:
        return self._model.predict(self._sample)

    def model_ns(self) -> int | None:
        return None


class PortableRuntime:
    """The portable runtime on this processor, ONNX Runtime's default threads. Its times are not Core ML's."""

    def open(self, target: Target) -> Opened:
        """Cold: translated anew. Cached: the translation comes from the cache folder."""
        cold_ns, _ = self._load(target, cache=False)
        self._load(target)  # so that it is in the cache
        cached_ns, model = self._load(target)
        return Opened(_PortableLoaded(model, target), cold_load_ns=cold_ns, cached_load_ns=cached_ns)

    def reopen(self, target: Target) -> Loaded:
        return _PortableLoaded(self._load(target)[1], target)

    def load_ns(self, target: Target) -> int | None:
        return None

    def close(self) -> None:
        """Nothing: what it loaded goes with the process."""

    def _load(self, target: Target, *, cache: bool = True) -> "tuple[int, PortableModel]":
        from coreml_prune_bench.runtimes import portable

        started = time.perf_counter_ns()
        model = portable.load(target.path, cache=cache)
        return time.perf_counter_ns() - started, model


class _PortableLoaded:
    def __init__(self, model: "PortableModel", target: Target) -> None:
        self._model = model
        sample = sample_inputs(model.inputs)
        self._inputs = sample if target.batch_size == 1 else _stacked(sample, target.batch_size)
        self._batched = target.batch_size > 1
        self._state = model.make_state() if model.states else None

    def predict(self) -> object:
        if self._batched:
            return self._model.predict_batch(self._inputs)
        return self._model.predict(self._inputs, self._state)

    def model_ns(self) -> int | None:
        return None


def _stacked(sample: dict[str, Any], count: int) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(value) for name, value in sample.items()}
    return {
        name: np.concatenate([array] * count) if array.shape[:1] == (1,) else np.stack([array] * count)
        for name, array in arrays.items()
    }
