"""The classes of `coremltools.libcoremlpython`, under their names, as CoreMLPython.mm of coremltools binds them.

Where the native module throws, these raise RuntimeError. Predictions and the model's structure come from the portable
runtime's own stand-in; what that one refuses to answer because only Apple hardware knows, the script answers here.
"""

import dataclasses
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from coreml_prune_bench.runtimes.portable.native import compiled, proxies
from coreml_prune_bench.runtimes.portable.native.structure import LayerProxy, OperationProxy
from tests.coreml_stand_in.clock import Clock
from tests.coreml_stand_in.script import Failure, Script

NOT_PLANNED = ("const", "constexpr_")


@dataclasses.dataclass
class World:
    """What the classes share: the script, its clock, and what the system has specialized already.

    factors: by model name and compute units, what each prediction's latency was scripted to be, without chance.
    """

    script: Script
    clock: Clock
    specialized: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    factors: dict[tuple[str, str], list[float]] = dataclasses.field(default_factory=dict)
    began_ns: int = 0

    @property
    def seconds(self) -> float:
        return (self.clock.now_ns - self.began_ns) / 1e9


class _MLModelProxy(proxies.ModelProxy):
    world: ClassVar[World]
    threads: ClassVar[int | None] = 1

    def __init__(
        self,
        path: str,
        compute_units: str,
        function_name: str = "",
        optimization_hints: Mapping[str, str] | None = None,
        asset: Any = None,
    ) -> None:
        self._name, self._units = _name_of(Path(path)), compute_units
        script = self.world.script
        if self._failure("load"):
            raise RuntimeError(
                "Failed to build the model execution plan using a model architecture file (error code: -14)."
            )
        super().__init__(path, compute_units, function_name, optimization_hints, asset)
        place = str(self._compiled), compute_units
        known = place in self.world.specialized
        self.world.specialized.add(place)
        self._load_duration = round(1e6 * (script.cached_load_ms if known else script.cold_load_ms))
        self.world.clock.advance(self._load_duration)
        self._calls = 0
        self._draw = np.random.default_rng(script.seed)
        self._answers: dict[str, Any] | None = None

    def predict(self, inputs: Mapping[str, Any], state: Any = None) -> dict[str, Any]:
        answers = self._answer(inputs, state)
        self._take(1)
        return answers

    def batchPredict(self, batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        answers = [self._answer(inputs, None) for inputs in batch]
        self._take(len(batch))
        return answers

    def _answer(self, inputs: Mapping[str, Any], state: Any) -> dict[str, Any]:
        self._fail()
        if self.world.script.predicts:
            return super().predict(inputs, state)
        if self._answers is None:
            self._answers = super().predict(inputs, state)
        return self._answers

    def _take(self, samples: int) -> None:
        script = self.world.script
        latency = script.latency(self._name, self._units)
        factors = self.world.factors.setdefault((self._name, self._units), [])
        factors.append(latency.factor(self._calls, self.world.seconds))
        self._last_duration = samples * latency.draw(self._calls, self.world.seconds, self._draw)
        self.world.clock.advance(self._last_duration + samples * script.conversion_ms * 1e6)
        self._calls += 1

    def _fail(self) -> None:
        failure = self.world.script.failure(self._name, self._units)
        if failure is None or self._calls < failure.at_call:
            return
        match failure.kind:
            case "predict":
                raise RuntimeError(
                    "Unable to compute the prediction using a neural network model. It can be an invalid input data or "
                    "broken/unsupported model (error code: -1)."
                )
            case "hang":
                time.sleep(3600)
            case "die":
                os.kill(os.getpid(), signal.SIGSEGV)

    def _failure(self, kind: str) -> Failure | None:
        failure = self.world.script.failure(self._name, self._units)
        return failure if failure and failure.kind == kind else None

    @classmethod
    def compileModel(cls, path: str) -> str:
        failure = cls.world.script.failures.get(Path(path).stem)
        if failure and failure.kind == "compile":
            raise RuntimeError(
                'Error compiling model: "compiler error: Encountered an error while compiling a neural network model".'
            )
        cls.world.clock.advance(1e6 * cls.world.script.compile_ms)
        return proxies.ModelProxy.compileModel(path)

    # --- what only the hardware knows

    @classmethod
    def get_compute_plan(cls, path: str, compute_units: str) -> Any:
        from coremltools.models.compute_plan import MLComputePlan

        if not cls.world.script.plans:
            raise RuntimeError("MLComputePlan is only available on macOS >= 14.4")
        return MLComputePlan(_MLComputePlanProxy(cls.get_model_structure(path), cls.world.script, compute_units))

    @classmethod
    def get_model_structure(cls, path: str) -> Any:
        return _with_versions(proxies.ModelProxy.get_model_structure(path))

    @classmethod
    def get_all_compute_devices(cls) -> list[Any]:
        return list(compute_devices(cls.world.script).values())

    get_available_compute_devices = get_all_compute_devices


def _name_of(path: Path) -> str:
    """Of the package: a compiled model, whatever it is called, holds it."""
    return (compiled.package_in(path) if compiled.is_compiled(path) else path).stem


class _MLCPUComputeDeviceProxy:
    pass


class _MLGPUComputeDeviceProxy:
    pass


class _MLNeuralEngineComputeDeviceProxy:
    cores = 16

    def get_total_core_count(self) -> int:
        return self.cores


class _MLComputePlanProxy:
    # coremltools derives from this class for plans that a connected device made, and calls it without arguments then.
    def __init__(self, structure: Any = None, script: Script | None = None, compute_units: str = "ALL") -> None:
        self._structure = structure
        self._script = script or Script()
        self._devices = {
            name: device for name, device in compute_devices(self._script).items() if name in _ALLOWED[compute_units]
        }

    @property
    def model_structure(self) -> Any:
        return self._structure

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        from coremltools.models.compute_plan import MLComputePlanDeviceUsage

        assert isinstance(operation.__proxy__, OperationProxy)
        type_ = operation.operator_name.rpartition(".")[2]
        if type_.startswith(NOT_PLANNED):
            return None
        wanted = self._script.placement.get(type_, "neural_engine")
        device = self._devices.get(wanted, self._devices["cpu"])
        # What is planned for the Neural Engine could run anywhere, what is not could not run there.
        supported = [d for name, d in self._devices.items() if wanted == "neural_engine" or name != "neural_engine"]
        return MLComputePlanDeviceUsage(preferred_compute_device=device, supported_compute_devices=supported)

    def get_compute_device_usage_for_neuralnetwork_layer(self, layer: Any) -> Any:
        raise AssertionError("no test has a neural network")

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        from coremltools.models.compute_plan import MLComputePlanCost

        type_ = operation.operator_name.rpartition(".")[2]
        return None if type_.startswith(NOT_PLANNED) else MLComputePlanCost(weight=self._script.costs.get(type_, 0.01))


_ALLOWED = {
    "ALL": ("cpu", "gpu", "neural_engine"),
    "CPU_AND_NE": ("cpu", "neural_engine"),
    "CPU_AND_GPU": ("cpu", "gpu"),
    "CPU_ONLY": ("cpu",),
}

CLASSES = {
    **{name: kind for name, kind in proxies.PROXIES.items() if name in ("_State", "_MLModelAssetProxy")},
    "_MLModelStructureProgramOperationProxy": OperationProxy,
    "_MLModelStructureNeuralNetworkLayerProxy": LayerProxy,
    "_MLCPUComputeDeviceProxy": _MLCPUComputeDeviceProxy,
    "_MLGPUComputeDeviceProxy": _MLGPUComputeDeviceProxy,
    "_MLNeuralEngineComputeDeviceProxy": _MLNeuralEngineComputeDeviceProxy,
    "_MLComputePlanProxy": _MLComputePlanProxy,
    "_MLModelProxy": _MLModelProxy,
}


def compute_devices(script: Script) -> dict[str, Any]:
    from coremltools.models import compute_device as ct

    devices: dict[str, Any] = {
        "cpu": ct.MLCPUComputeDevice(_MLCPUComputeDeviceProxy()),
        "gpu": ct.MLGPUComputeDevice(_MLGPUComputeDeviceProxy()),
    }
    if script.neural_engine_cores is not None:
        proxy = _MLNeuralEngineComputeDeviceProxy()
        proxy.cores = script.neural_engine_cores
        devices["neural_engine"] = ct.MLNeuralEngineComputeDevice(proxy)
    return devices


def _with_versions(structure: Any) -> Any:
    """Core ML puts the operation set before an operation's type, as in "ios17.conv"; constants have none."""

    def versioned(block: Any) -> Any:
        return dataclasses.replace(block, operations=[operation(one) for one in block.operations])

    def operation(one: Any) -> Any:
        name = one.operator_name if one.operator_name == "const" else f"ios17.{one.operator_name}"
        return dataclasses.replace(one, operator_name=name, blocks=[versioned(block) for block in one.blocks])

    program = structure.program
    functions = {
        name: dataclasses.replace(function, block=versioned(function.block))
        for name, function in program.functions.items()
    }
    return dataclasses.replace(structure, program=dataclasses.replace(program, functions=functions))
