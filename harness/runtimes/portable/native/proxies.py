"""The classes of `coremltools.libcoremlpython`, as coremltools calls them, over the portable runtime.

Names, arguments and kinds of results are the native module's. Where that raises, these raise RuntimeError, which is
what coremltools catches. They must know no operation and answer nothing that only Apple's hardware can.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.runtimes import portable
from coreml_prune_bench.runtimes.portable.native import compiled
from coreml_prune_bench.runtimes.portable.native.features import (
    array_from_runtime,
    array_to_runtime,
    inputs_to_runtime,
    outputs_from_runtime,
)
from coreml_prune_bench.runtimes.portable.native.structure import LayerProxy, OperationProxy, model_structure

if TYPE_CHECKING:
    from coreml_prune_bench.mlprogram.program import Feature
    from coreml_prune_bench.runtimes.portable.graph import Precision

NEWEST_SPECIFICATION = 10
"""coremltools 9.0's own. A program that uses what the runtime does not cover is refused by the operation's name."""

_COMPUTE_UNITS = ("ALL", "CPU_AND_GPU", "CPU_ONLY", "CPU_AND_NE")


class AppleHardwareError(RuntimeError):
    """Asked for what only Core ML on Apple hardware can tell."""


def _only_apple(what: str) -> NoReturn:
    raise AppleHardwareError(
        f"{what} can only come from Core ML on Apple hardware; this is the portable runtime, which runs on this CPU"
    )


class ModelProxy:
    """`_MLModelProxy`: a model that predicts. `install` binds `precision` and `threads`."""

    precision: ClassVar[Precision] = "float32"
    threads: ClassVar[int | None] = None

    def __init__(
        self,
        path: str,
        compute_units: str,
        function_name: str = "",
        optimization_hints: Mapping[str, str] | None = None,
        asset: AssetProxy | None = None,
    ) -> None:
        """`path` is a `.mlpackage`, or a compiled model; an `asset` takes its place. There is one device: the CPU.

        Raises RuntimeError where the model cannot be run, which coremltools turns into a warning.
        """
        if compute_units not in _COMPUTE_UNITS:
            raise RuntimeError(f"no compute units {compute_units!r}, expected one of {', '.join(_COMPUTE_UNITS)}")
        self._compiled = asset.compiled if asset is not None else self._compile(Path(path))
        self._last_duration: int | None = None
        started = time.perf_counter_ns()
        try:
            package = compiled.package_in(self._compiled)
            function = function_name or None
            with _loggers_kept():
                self._model = portable.load(package, function=function, precision=self.precision, threads=self.threads)
        except Exception as error:
            # Whatever it is, converting and saving have to go on: coremltools catches RuntimeError and keeps it.
            raise RuntimeError(self._told(error)) from error
        self._load_duration = time.perf_counter_ns() - started

    def _compile(self, path: Path) -> Path:
        if compiled.is_compiled(path):
            return path
        made = _compile(path)
        weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        return made

    # --- predicting

    def predict(self, inputs: Mapping[str, Any], state: StateProxy | None = None) -> dict[str, Any]:
        results, self._last_duration = self._timed(inputs, state)
        return results

    def batchPredict(self, batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        timed = [self._timed(inputs, None) for inputs in batch]
        self._last_duration = sum(duration for _, duration in timed)
        return [results for results, _ in timed]

    def newState(self) -> StateProxy:
        return StateProxy(self._model.states, self._model.make_state())

    def _timed(self, inputs: Mapping[str, Any], state: StateProxy | None) -> tuple[dict[str, Any], int]:
        """Results, and the nanoseconds of the prediction proper."""
        if self._model.states and state is None:
            raise RuntimeError("The model is stateful: predict needs the state that make_state returns.")
        if state is not None and not self._model.states:
            raise RuntimeError("The model has no state, but predict was given one.")
        try:
            given = inputs_to_runtime(self._model.inputs, inputs)
        except PackageError as error:
            raise RuntimeError(str(error)) from error
        started = time.perf_counter_ns()
        try:
            values = self._model.predict(given, None if state is None else state.arrays)
        except Exception as error:
            # ONNX Runtime's errors have no common class, and a caller of Core ML knows one kind only.
            raise RuntimeError(f"Unable to compute the prediction using ML Program. {self._told(error)}") from error
        duration = time.perf_counter_ns() - started
        return outputs_from_runtime(self._model.outputs, values), duration

    def _told(self, error: Exception) -> str:
        """Without the temporary folder, which says nothing to the caller."""
        return _told(error).replace(f"{self._compiled}/", "")

    # --- what else a loaded model tells

    def get_compiled_model_path(self) -> str:
        return str(self._compiled)

    def get_load_duration_in_nano_seconds(self) -> int | None:
        return self._load_duration

    def get_last_predict_duration_in_nano_seconds(self) -> int | None:
        return self._last_duration

    # --- without a model

    @staticmethod
    def compileModel(path: str) -> str:
        return str(_compile(Path(path)))

    @staticmethod
    def maximum_supported_specification_version() -> int:
        return NEWEST_SPECIFICATION

    @staticmethod
    def auto_set_specification_version(specification: Any) -> NoReturn:
        raise RuntimeError("only Core ML's own library can find the lowest specification version of a model")

    @staticmethod
    def create_model_asset_from_path(path: str) -> Any:
        try:
            compiled.package_in(Path(path))
        except PackageError as error:
            raise RuntimeError(str(error)) from error
        return _asset(AssetProxy(Path(path), temporary=False))

    @staticmethod
    def create_model_asset_from_memory(specification: bytes, blobs: Mapping[str, bytes]) -> Any:
        try:
            with _loggers_kept():
                made = compiled.compile_memory(specification, blobs)
        except Exception as error:  # a damaged protobuf has its own class
            raise RuntimeError(_told(error)) from error
        return _asset(AssetProxy(made, temporary=True))

    @staticmethod
    def get_model_structure(path: str) -> Any:
        try:
            return model_structure(compiled.package_in(Path(path)))
        except PackageError as error:
            raise RuntimeError(str(error)) from error

    @staticmethod
    def get_compute_plan(path: str, compute_units: str) -> NoReturn:
        _only_apple("a compute plan")

    @staticmethod
    def get_available_compute_devices() -> NoReturn:
        _only_apple("the list of compute devices")

    @staticmethod
    def get_all_compute_devices() -> NoReturn:
        _only_apple("the list of compute devices")


class StateProxy:
    """`_State`: a stateful model's memory. `arrays` are the runtime's, by name."""

    def __init__(self, features: Sequence[Feature], arrays: dict[str, np.ndarray]) -> None:
        self._features = {feature.name: feature for feature in features}
        self.arrays = arrays

    def read_state(self, name: str) -> np.ndarray:
        return array_from_runtime(self._feature(name), self.arrays[name])

    def write_state(self, name: str, value: Any) -> None:
        try:
            array = array_to_runtime(self._feature(name), value)
        except PackageError as error:
            raise RuntimeError(str(error)) from error
        self.arrays[name] = array.astype(self.arrays[name].dtype)

    def _feature(self, name: str) -> Feature:
        if name not in self._features:
            raise RuntimeError(f"no state {name!r}, expected one of {', '.join(self._features)}")
        return self._features[name]


class AssetProxy:
    """`_MLModelAssetProxy`: a compiled model, on disk or from memory (then in the temporary files while it is used)."""

    def __init__(self, folder: Path, *, temporary: bool) -> None:
        self.compiled = folder
        if temporary:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)


class CPUProxy:
    """`_MLCPUComputeDeviceProxy`. coremltools derives from the devices' classes; there is none to hand out here."""


class GPUProxy:
    """`_MLGPUComputeDeviceProxy`."""


class NeuralEngineProxy:
    """`_MLNeuralEngineComputeDeviceProxy`."""

    def get_total_core_count(self) -> int:
        _only_apple("the number of Neural Engine cores")


class ComputePlanProxy:
    """`_MLComputePlanProxy`. coremltools derives from it for plans that a connected device made."""

    @property
    def model_structure(self) -> Any:
        _only_apple("a compute plan")

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        _only_apple("a compute plan")

    def get_compute_device_usage_for_neuralnetwork_layer(self, layer: Any) -> Any:
        _only_apple("a compute plan")

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        _only_apple("a compute plan")


PROXIES = {
    "_State": StateProxy,
    "_MLModelAssetProxy": AssetProxy,
    "_MLCPUComputeDeviceProxy": CPUProxy,
    "_MLGPUComputeDeviceProxy": GPUProxy,
    "_MLNeuralEngineComputeDeviceProxy": NeuralEngineProxy,
    "_MLComputePlanProxy": ComputePlanProxy,
    "_MLModelStructureProgramOperationProxy": OperationProxy,
    "_MLModelStructureNeuralNetworkLayerProxy": LayerProxy,
}


def _compile(path: Path) -> Path:
    try:
        with _loggers_kept():
            return compiled.compile_model(path)
    except Exception as error:  # a damaged protobuf has its own class
        raise RuntimeError(f'Error compiling model: "{_told(error)}".') from error


def _asset(proxy: AssetProxy) -> Any:
    from coremltools.models.model import MLModelAsset

    return MLModelAsset(proxy)


@contextlib.contextmanager
def _loggers_kept() -> Iterator[None]:
    """The runtime quiets coremltools when it reads a package; here its caller means to hear it."""
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith("coreml")]
    levels = [logger.level for logger in loggers]
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _told(error: Exception) -> str:
    """An error of ours is a sentence already; another's says little without its class."""
    return str(error) if isinstance(error, PackageError) else f"{type(error).__name__}: {error}"
