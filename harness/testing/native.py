"""The classes of `coremltools.libcoremlpython`, under their names, as CoreMLPython.mm of coremltools binds them.

Where the native module throws, these raise RuntimeError. Predictions and the model's structure come from the portable
runtime's own stand-in; what that one refuses to answer because only Apple hardware knows, the script answers here.
"""

import dataclasses
import hashlib
import os
import signal
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.runtimes.portable.native import compiled, proxies
from coreml_prune_bench.runtimes.portable.native.structure import LayerProxy, OperationProxy
from coreml_prune_bench.testing.binding import accepted, as_float16, differing, dumped, native_error
from coreml_prune_bench.testing.clock import Clock
from coreml_prune_bench.testing.script import Failure, Script

NOT_PLANNED = ("const", "constexpr_")


@dataclasses.dataclass
class World:
    """What the classes share: the script, its clock, and where the machine keeps its files.

    factors: by model name and compute units, what each prediction's latency was scripted to be, without chance.
    loaded: the compiled models that were.
    """

    script: Script
    clock: Clock
    home: Path
    factors: dict[tuple[str, str], list[float]] = dataclasses.field(default_factory=dict)
    began_ns: int = 0
    idle_since_ns: int | None = None
    predictions: int = 0
    models: int = 0
    qos: str = "default"
    slept: bool = False
    loaded: set[Path] = dataclasses.field(default_factory=set)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return (self.clock.now_ns - self.began_ns) / 1e9

    @property
    def specialized(self) -> Path:
        """The folder of what the system has specialized. It belongs to the executable, and follows the user's home."""
        fresh = os.environ.get("CFFIXED_USER_HOME") if self.script.fresh_home_is_cold else None
        return Path(fresh or self.home) / "Library/Caches" / Path(sys.executable).name / CACHE

    def warm(self, model: Path, units: str) -> bool:
        """Specialize a compiled model for compute units; returns whether it was already."""
        by = str(model) if self.script.cache_key == "path" else tree_hash(compiled.package_in(model))
        entry = self.specialized / hashlib.sha256(f"{by} {units}".encode()).hexdigest()[:16]
        known = entry.is_file()
        self.loaded.add(model)
        if not known:
            entry.parent.mkdir(parents=True, exist_ok=True)
            entry.write_bytes(bytes(4096))
        return known

    def predicted(self, nanoseconds: float) -> None:
        """A prediction took so long; what follows from how many there were."""
        script, clock = self.script, self.clock
        clock.advance(nanoseconds)
        self.idle_since_ns = clock.now_ns
        self.predictions += 1
        self.fall_asleep()
        if script.throttles_after is not None and self.predictions >= script.throttles_after:
            (self.home / THERMAL).write_text("2")

    def wait(self, seconds: float) -> None:
        """A program waits."""
        self.clock.sleep(seconds)
        self.fall_asleep()

    def fall_asleep(self) -> None:
        """If it is time to, once."""
        if self.seconds >= self.script.sleeps_at_s and not self.slept:
            self.slept = True
            self.clock.fall_asleep(self.script.sleeps_for_s)

    def rewake_ns(self, units: str) -> float:
        """What the Neural Engine takes to wake up, if it has to now."""
        idle_ns = 0 if self.idle_since_ns is None else self.clock.now_ns - self.idle_since_ns
        asleep = units in ("ALL", "CPU_AND_NE") and idle_ns > 1e9 * self.script.rewake_after_s
        return 1e6 * self.script.rewake_ms if asleep else 0.0


CACHE = "com.apple.e5rt.e5bundlecache"
THERMAL = "thermal-pressure"
"""A file in the home folder: the level that `notifyutil` prints."""


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
            raise native_error(
                "Failed to build the model execution plan using a model architecture file (error code: -14)."
            )
        if not script.moves and asset is None and _moved(Path(path)):
            raise native_error("A valid manifest does not exist at path: the model was moved.")
        with dumped(script):
            super().__init__(path, compute_units, function_name, optimization_hints, asset)
        known = self.world.warm(self._compiled, compute_units)
        self.world.models += 1
        self._load_duration = round(1e6 * (script.cached_load_ms if known else script.cold_load_ms))
        self.world.clock.advance(self._load_duration)
        self._last_duration = script.duration_before
        self._calls = 0
        self._draw = np.random.default_rng(script.seed)
        self._answers: dict[str, Any] | None = None
        self._before: dict[str, Any] = {}
        self._given: dict[int, tuple[weakref.ref[np.ndarray], int]] = {}

    def predict(self, inputs: Mapping[str, Any], state: Any = None) -> dict[str, Any]:
        answers = self._answer(inputs, state)
        self._take(1)
        return answers

    def batchPredict(self, batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        answers = [self._answer(inputs, None) for inputs in batch]
        self._take(len(batch))
        return answers if self.world.script.batch_in_order else answers[::-1]

    def _answer(self, inputs: Mapping[str, Any], state: Any) -> dict[str, Any]:
        self._fail()
        script = self.world.script
        if script.segfaults_late:
            self._released(inputs)
        if self._answers is None or script.predicts is True or self._model.states or self._are_new(inputs):
            with dumped(script):
                self._answers = super().predict(accepted(self._model.inputs, inputs, script), state)
        answers = differing(self._answers, script.error.get(self._units, 0.0))
        return as_float16(self._model.outputs, answers) if script.float16_as == "float16" else answers

    def _take(self, samples: int) -> None:
        world = self.world
        script, seconds = world.script, world.seconds
        latency = script.latency(self._name, self._units)
        factors = world.factors.setdefault((self._name, self._units), [])
        factors.append(latency.factor(self._calls, seconds))
        one = latency.draw(self._calls, seconds, self._draw) * script.qos_factors.get(world.qos, 1.0)
        rewake = world.rewake_ns(self._units)
        told = rewake + one * (1 if script.batch_duration == "one" else samples)
        self._last_duration = round(told / script.duration_unit_ns)
        world.predicted(rewake + samples * (one + script.conversion_ms * 1e6))
        self._calls += 1

    def _are_new(self, inputs: Mapping[str, Any]) -> bool:
        """Whether predictions are computed for new inputs, and these are other objects than the last ones."""
        if self.world.script.predicts != "new":
            return False
        before, self._before = self._before, dict(inputs)
        return before.keys() != inputs.keys() or any(before[name] is not value for name, value in inputs.items())

    def newState(self) -> "_State":
        return _State(self._model.states, self._model.make_state(), self.world.script.keeps_state)

    def _released(self, inputs: Mapping[str, Any]) -> None:
        """coremltools 9.0 lets go of input arrays a second later, without Python's lock (its commit 2de298a3)."""
        now = self.world.clock.now_ns
        if any(now - at > 1e9 and array() is None for array, at in self._given.values()):
            os.kill(os.getpid(), signal.SIGSEGV)
        arrays = [value for value in inputs.values() if isinstance(value, np.ndarray)]
        self._given |= {id(array): (weakref.ref(array), now) for array in arrays}

    def _fail(self) -> None:
        failure = self.world.script.failure(self._name, self._units)
        if failure is None or self._calls < failure.at_call:
            return
        match failure.kind:
            case "predict":
                raise native_error(
                    "Unable to compute the prediction using a neural network model. It can be an invalid input data or "
                    "broken/unsupported model (error code: -1)."
                )
            case "hang":
                SLEEP(3600)
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
        with dumped(cls.world.script):
            return proxies.ModelProxy.compileModel(path)

    # --- what only the hardware knows

    @classmethod
    def get_compute_plan(cls, path: str, compute_units: str) -> Any:
        from coremltools.models.compute_plan import MLComputePlan

        if not cls.world.script.plans:
            raise RuntimeError("MLComputePlan is only available on macOS >= 14.4")
        if not compiled.is_compiled(Path(path)) or not Path(path).is_dir():
            os.abort()  # as Core ML does: https://github.com/apple/coremltools/issues/2757
        if cls.world.script.plan_warms:
            cls.world.warm(Path(path), compute_units)
        return MLComputePlan(_MLComputePlanProxy(cls.get_model_structure(path), cls.world.script, compute_units))

    @classmethod
    def get_model_structure(cls, path: str) -> Any:
        return _with_versions(proxies.ModelProxy.get_model_structure(path))

    @classmethod
    def get_all_compute_devices(cls) -> Any:
        script = cls.world.script
        devices = compute_devices(script)
        more = [devices["neural_engine"]] * (script.engines - 1) if "neural_engine" in devices else []
        return [*devices.values(), *more]

    @classmethod
    def get_available_compute_devices(cls) -> Any:
        return cls.get_all_compute_devices()


PLACE = "first-loaded-at.txt"
"""In a compiled folder, on a Mac where it cannot be moved: where it was loaded first."""

SLEEP = time.sleep
"""The real one: a process may have the scripted clock in its place."""


def _name_of(path: Path) -> str:
    """Of the package: a compiled model, whatever it is called, holds it."""
    return (compiled.package_in(path) if compiled.is_compiled(path) and path.is_dir() else path).stem


def _moved(path: Path) -> bool:
    """Since it was loaded first."""
    place = path / PLACE
    if path.is_dir() and not place.exists():
        place.write_text(str(path))
    return place.is_file() and place.read_text() != str(path)


class _State(proxies.StateProxy):
    # coremltools makes none itself, so the constructor is free to know more.
    def __init__(self, features: Sequence[Any], arrays: dict[str, np.ndarray], keeps: bool) -> None:
        super().__init__(features, arrays)
        self._keeps = keeps

    def write_state(self, name: str, value: Any) -> None:
        if self._keeps:
            super().write_state(name, value)


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
            name: device
            for name, device in compute_devices(self._script).items()
            if name in _ALLOWED[compute_units if self._script.plans_follow_units else "ALL"]
        }

    @property
    def model_structure(self) -> Any:
        return self._structure

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        from coremltools.models.compute_plan import MLComputePlanDeviceUsage

        assert isinstance(operation.__proxy__, OperationProxy)
        type_ = operation.operator_name.rpartition(".")[2]
        if type_.startswith(NOT_PLANNED) and not self._script.plans_constants:
            return None
        wanted = self._script.placement.get(type_, "neural_engine")
        device = self._devices.get(wanted, self._devices["cpu"])
        # What is planned for the Neural Engine could run anywhere, what is not could not run there.
        supported = [d for name, d in self._devices.items() if wanted == "neural_engine" or name != "neural_engine"]
        return MLComputePlanDeviceUsage(preferred_compute_device=device, supported_compute_devices=supported)

    def get_compute_device_usage_for_neuralnetwork_layer(self, layer: Any) -> Any:
        return None

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        from coremltools.models.compute_plan import MLComputePlanCost

        type_ = operation.operator_name.rpartition(".")[2]
        return (
            None
            if type_.startswith(NOT_PLANNED) and not self._script.plans_constants
            else MLComputePlanCost(weight=self._script.costs.get(type_, 0.01))
        )


_ALLOWED = {
    "ALL": ("cpu", "gpu", "neural_engine"),
    "CPU_AND_NE": ("cpu", "neural_engine"),
    "CPU_AND_GPU": ("cpu", "gpu"),
    "CPU_ONLY": ("cpu",),
}

CLASSES = {
    "_MLModelAssetProxy": proxies.AssetProxy,
    "_State": _State,
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
        proxy.cores = script.listed_cores or script.neural_engine_cores
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
