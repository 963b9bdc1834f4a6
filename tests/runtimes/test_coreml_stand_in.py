"""The stand-in is what coremltools expects of its native module, and coremltools' own classes run on it."""

import ast
import asyncio
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import coremltools as ct
import numpy as np
import PIL.Image
import pytest
from coremltools.models import CompiledMLModel, MLModel
from coremltools.models.compute_device import MLComputeDevice, MLNeuralEngineComputeDevice
from coremltools.models.compute_plan import MLComputePlan, MLModelStructure

from coreml_prune_bench.runtimes import coreml, portable
from coreml_prune_bench.testing import Failure, Latency, Script, StandIn, installed
from coreml_prune_bench.testing.install import NAME
from coreml_prune_bench.testing.native import CLASSES

MODELS = Path(ct.__file__).parent / "models"

# Which native class stands behind an attribute of which class of coremltools.
BEHIND = {
    ("model.py", "MLModel"): "_MLModelProxy",
    ("model.py", "MLState"): "_State",
    ("_compiled_model.py", "CompiledMLModel"): "_MLModelProxy",
    ("compute_plan.py", "MLComputePlan"): "_MLComputePlanProxy",
    ("compute_device.py", "MLNeuralEngineComputeDevice"): "_MLNeuralEngineComputeDeviceProxy",
}
# Names in coremltools of what it was given, on which it calls methods.
VARIABLES = {("model.py", "proxy"): "_MLModelProxy"}

# Bound by CoreMLPython.mm, and called by nothing in coremltools.
UNCALLED = {("_MLModelProxy", "maximum_supported_specification_version")}


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    script = Script({"tiny": Latency(ms=2, noise=0)}, cold_load_ms=100, cached_load_ms=10)
    with installed(script) as stand_in:
        yield stand_in


@pytest.fixture
def image() -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


# --- the surface


def imported() -> set[str]:
    """The classes that coremltools imports from its native module, anywhere."""
    found = set()
    for path in MODELS.parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "test" in path.parts or "libcoremlpython" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("libcoremlpython"):
                found |= {alias.name for alias in node.names}
    return found


def called() -> set[tuple[str, str]]:
    """(native class, attribute) that coremltools uses, from its sources."""
    found: set[tuple[str, str]] = set()
    for path in MODELS.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for holder in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]:
            owner = getattr(holder, "name", "")
            for node in ast.walk(holder):
                if isinstance(node, ast.Attribute):
                    native = behind(path.name, owner, node.value)
                    if native is not None:
                        found.add((native, node.attr))
    return found


def behind(file: str, owner: str, value: ast.expr) -> str | None:
    match value:
        case ast.Name(id=name) if name in CLASSES:
            return name
        case ast.Name(id=name):
            return VARIABLES.get((file, name)) if owner == "MLModel" else None
        case ast.Attribute(value=ast.Name(id="self"), attr="__proxy__" | "_proxy"):
            return BEHIND.get((file, owner))
    return None


def test_coremltools_imports_nothing_that_the_stand_in_has_not() -> None:
    assert imported() <= set(CLASSES)


def test_coremltools_calls_what_the_stand_in_has() -> None:
    used = {(native, name) for native, name in called() if not name.startswith("__")}
    lacking = {(native, name) for native, name in used if not hasattr(CLASSES[native], name)}
    assert not lacking
    # And no less: if an upgrade stops using one, or this parser no longer sees it, that is to be looked at too.
    offered = {
        (native, name)
        for native, kind in CLASSES.items()
        if native not in ("_MLModelStructureProgramOperationProxy", "_MLModelStructureNeuralNetworkLayerProxy")
        for name in vars(kind) | (vars(CLASSES["_MLModelProxy"].__base__) if native == "_MLModelProxy" else {})
        if not name.startswith("_") and name not in ("world", "threads", "precision", "cores")
    }
    assert offered - used - UNCALLED == set()


def test_constructors_take_what_coremltools_gives() -> None:
    source = inspect.getsource(sys.modules["coremltools.models._compiled_model"])
    (call,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_MLModelProxy"
    )
    inspect.signature(CLASSES["_MLModelProxy"]).bind(*call.args)


def test_it_is_gone_afterwards(package: Path) -> None:
    before, available = sys.modules.get(NAME), coreml.is_available()
    with installed(Script()):
        assert coreml.is_available()
        assert MLModel(str(package)).get_spec()
    assert sys.modules.get(NAME) is before
    assert coreml.is_available() is available


def test_the_portable_runtime_in_core_mls_place_is_not_core_ml(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert coreml.is_available()
    from coreml_prune_bench.runtimes.portable import native

    monkeypatch.setattr(native, "is_installed", lambda: True)
    assert not coreml.is_available()


# --- coremltools' own classes, unpatched


def test_compiled_model_and_its_durations(stand_in: StandIn, package: Path, image: PIL.Image.Image) -> None:
    model = coreml.Model(package)
    (name, logits), *_ = model.predict({"image": image}).items()
    assert (name, logits.shape) == ("logits", (1, 3))
    expected = portable.load(package, precision="float32").predict({"image": image})["logits"]
    np.testing.assert_allclose(logits, expected, rtol=1e-3)  # declared as Float16
    assert model.last_predict_ns == 2_000_000
    assert model.load_ns == 100_000_000
    assert coreml.Model(package).load_ns == 10_000_000
    assert isinstance(model._model, CompiledMLModel)


def test_model_compiles_and_predicts(stand_in: StandIn, package: Path, image: PIL.Image.Image) -> None:
    model = MLModel(str(package))
    assert model.predict({"image": image})["logits"].shape == (1, 3)
    assert len(model.predict([{"image": image}] * 3)) == 3
    assert model.last_predict_duration_in_nano_seconds == 3 * 2_000_000
    assert model.load_duration_in_nano_seconds == 100_000_000
    # Unlike the compiled one it compiles to a temporary path each time, which Core ML knows nothing of.
    assert MLModel(str(package)).load_duration_in_nano_seconds == 100_000_000


def test_compute_plan_and_structure(stand_in: StandIn, package: Path) -> None:
    model = MLModel(str(package))
    path = model.get_compiled_model_path()
    plan = MLComputePlan.load_from_path(path, ct.ComputeUnit.CPU_AND_NE)
    operations = plan.model_structure.program.functions["main"].block.operations
    conv = next(operation for operation in operations if operation.operator_name == "ios17.conv")
    usage = plan.get_compute_device_usage_for_mlprogram_operation(conv)
    assert isinstance(usage.preferred_compute_device, MLNeuralEngineComputeDevice)
    assert len(usage.supported_compute_devices) == 2
    const = next(operation for operation in operations if operation.operator_name == "const")
    assert plan.get_compute_device_usage_for_mlprogram_operation(const) is None
    assert isinstance(MLModelStructure.load_from_path(path), MLModelStructure)


def test_devices() -> None:
    with installed(Script(neural_engine_cores=None)):
        assert len(MLComputeDevice.get_all_compute_devices()) == 2
    with installed(Script(neural_engine_cores=16)):
        *_, engine = MLModel.get_available_compute_devices()
        assert engine.total_core_count == 16


def test_asynchronous_wrapper_is_not_asynchronous_on_this_machine(
    stand_in: StandIn, package: Path, image: PIL.Image.Image
) -> None:
    """Why `--concurrency` needs processes: a prediction never gives the event loop a turn."""
    wrapper = importlib.import_module("coremltools.models.ml_program.experimental.async_wrapper").MLModelAsyncWrapper
    model = wrapper.from_spec_or_path(str(package), weights_dir="")
    asyncio.run(model.load())
    with pytest.raises(StopIteration) as ended:
        model.predict({"image": image}).send(None)  # ends where an asynchronous one would first wait
    assert ended.value.value["logits"].shape == (1, 3)
    assert model.last_predict_duration_in_nano_seconds == 2_000_000
    assert model.load_duration_in_nano_seconds == 100_000_000
    assert isinstance(asyncio.run(model.retrieve_compute_plan()), MLComputePlan)


def test_errors_are_the_native_modules(package: Path, image: PIL.Image.Image) -> None:
    with installed(Script(failures={"tiny": Failure("predict", at_call=1)})):
        model = coreml.Model(package)
        model.predict({"image": image})
        with pytest.raises(RuntimeError, match="error code: -1"):
            model.predict({"image": image})
    with installed(Script(plans=False)), pytest.raises(RuntimeError, match=r"only available on macOS >= 14\.4"):
        coreml.compute_plan(coreml.Model(package).compiled.path, "all")
