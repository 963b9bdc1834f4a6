"""coremltools over the portable runtime: what its callers get on an OS without Core ML, and what is refused."""

import gc
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil import mil
from coremltools.converters.mil.mil import types
from coremltools.models import CompiledMLModel, MLModel
from coremltools.models.compute_device import MLComputeDevice
from coremltools.models.compute_plan import MLComputePlan, MLModelStructure
from coremltools.models.model import MLModelAsset
from coremltools.models.utils import compile_model, load_spec
from PIL import Image

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.runtimes.portable import native
from coreml_prune_bench.runtimes.portable.native.proxies import AppleHardwareError
from tests.runtimes.packages import from_mil, from_torch

NAME = "coremltools.libcoremlpython"


@pytest.fixture(autouse=True, scope="module")
def installed() -> Iterator[None]:
    native.install(threads=1)
    yield
    native.uninstall()


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = W x + 1 on x [1, 3], with W [16, 3] in the weight file."""
    weight = np.arange(48, dtype=np.float32).reshape(16, 3)
    path = tmp_path_factory.mktemp("scaled") / "scaled.mlpackage"
    return from_mil(path, lambda x: mb.linear(x=x, weight=weight, bias=np.ones(16, np.float32), name="y"), (1, 3))


def expected(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32) @ np.arange(48, dtype=np.float32).reshape(16, 3).T + 1


def convert(build: Any, *specs: mb.TensorSpec, **options: Any) -> MLModel:
    """iOS18, with coremltools' own passes, loaded as `ct.convert` does at its end."""
    program = mb.program(input_specs=list(specs), opset_version=ct.target.iOS18)(build)
    return ct.convert(program, **({"minimum_deployment_target": ct.target.iOS18} | options))


# --- predicting


@pytest.mark.parametrize(
    "x",
    [
        np.array([[1, 2, 3]], np.float32),
        np.array([[1, 2, 3]], np.float64),
        np.array([[1, 2, 3]], np.float16),
        np.array([[1, 2, 3]], np.int32),
        [[1, 2, 3]],
        [[1.0, 2.0, 3.0]],
    ],
    ids=["float32", "float64", "float16", "int32", "list of int", "list of float"],
)
def test_array_of_any_type_and_list(scaled: Path, x: Any) -> None:
    (name, y) = next(iter(MLModel(str(scaled)).predict({"x": x}).items()))
    assert (name, y.dtype, y.shape) == ("y", np.float32, (1, 16))
    np.testing.assert_allclose(y, expected([[1, 2, 3]]))


def test_batch_of_dictionaries(scaled: Path) -> None:
    xs = [np.full((1, 3), i, np.float32) for i in range(3)]
    results = MLModel(str(scaled)).predict([{"x": x} for x in xs])
    for x, result in zip(xs, results, strict=True):
        np.testing.assert_allclose(result["y"], expected(x))


def test_compute_units_and_hints_are_taken(scaled: Path) -> None:
    for units in ct.ComputeUnit:
        assert MLModel(str(scaled), compute_units=units).predict({"x": np.ones((1, 3))})
    hints = {"reshapeFrequency": ct.ReshapeFrequency.Infrequent}
    assert MLModel(str(scaled), optimization_hints=hints).predict({"x": np.ones((1, 3))})


def test_float16_comes_back_rounded_as_float32() -> None:
    model = convert(
        lambda x: mb.mul(x=x, y=np.float16(1.001), name="y"),
        mb.TensorSpec(shape=(2,), dtype=types.fp16),
        outputs=[ct.TensorType(dtype=np.float16)],
    )
    y = model.predict({"x": np.array([1.0, 3.0])})["y"]
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, y.astype(np.float16).astype(np.float32))


def test_integers_are_cut_off_and_come_back_as_int32() -> None:
    model = convert(lambda x: mb.add(x=x, y=1, name="y"), mb.TensorSpec(shape=(3,), dtype=types.int32))
    y = model.predict({"x": np.array([1.9, -1.9, 4.0])})["y"]
    assert y.dtype == np.int32
    assert y.tolist() == [2, 0, 5]


def test_scalar_comes_back_as_one_element() -> None:
    model = convert(lambda x: mb.reduce_sum(x=x, axes=[0], keep_dims=False, name="y"), mb.TensorSpec(shape=(3,)))
    assert model.predict({"x": np.ones(3)})["y"].shape == (1,)


def test_optional_input_is_filled_in() -> None:
    specs = (mb.TensorSpec(shape=(2,)), mb.TensorSpec(shape=(2,)))
    inputs = [
        ct.TensorType(name="x", shape=(2,), default_value=np.full(2, 5, np.float32)),
        ct.TensorType("y", shape=(2,)),
    ]
    model = convert(lambda x, y: mb.add(x=x, y=y, name="z"), *specs, inputs=inputs)
    assert model.predict({"y": np.ones(2)})["z"].tolist() == [6, 6]
    assert model.predict({"x": np.ones(2), "y": np.ones(2)})["z"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("layout", "channels", "mode"), [("RGB", 3, "RGBA"), ("BGR", 3, "RGBA"), ("GRAYSCALE", 1, "L")]
)
def test_images_come_back_as_core_ml_returns_them(layout: str, channels: int, mode: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, channels), np.uint8)
    image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    shape, color = (1, channels, 4, 5), getattr(ct.colorlayout, layout)
    path = from_torch(
        tmp_path / "m.mlpackage",
        torch.nn.Hardtanh(0.0, 255.0),
        shape,
        inputs=[ct.ImageType("x", shape=shape, color_layout=color)],
        outputs=[ct.ImageType("y", color_layout=color)],
    )
    model = MLModel(str(path))
    result = model.predict({"x": image})["y"]
    assert result.mode == mode
    np.testing.assert_array_equal(np.asarray(result.convert(image.mode)), np.asarray(image))
    with pytest.raises(RuntimeError, match="Image size 7 x 4"):
        model.predict({"x": image.resize((7, 4))})


def test_classifier() -> None:
    model = convert(
        lambda x: mb.softmax(x=x, axis=-1, name="scores"),
        mb.TensorSpec(shape=(1, 3)),
        classifier_config=ct.ClassifierConfig(["cat", "dog", "eel"]),
    )
    result = model.predict({"x": np.array([[0.0, 2.0, 1.0]])})
    label, scores = result["classLabel"], result["classLabel_probs"]
    assert label == "dog"
    assert sorted(scores, key=scores.get) == ["cat", "eel", "dog"]
    assert all(type(score) is float for score in scores.values())


def test_durations(scaled: Path) -> None:
    model = MLModel(str(scaled))
    assert model.load_duration_in_nano_seconds > 0
    assert model.last_predict_duration_in_nano_seconds is None
    model.predict({"x": np.ones((1, 3))})
    assert model.last_predict_duration_in_nano_seconds > 0


def test_precision_of_float16(scaled: Path) -> None:
    model = convert(lambda x: mb.sub(x=mb.add(x=x, y=1.0), y=1.0, name="y"), mb.TensorSpec(shape=(1,)))
    path = model.package_path
    assert MLModel(path).predict({"x": np.array([1e-4])})["y"][0] == pytest.approx(1e-4, rel=0.01)
    try:
        native.install(precision="float16", threads=1)
        assert MLModel(path).predict({"x": np.array([1e-4])})["y"][0] == 0
    finally:
        native.install(threads=1)


# --- state


@pytest.fixture(scope="module")
def accumulator() -> MLModel:
    """Adds x to what it has, and returns the sum."""

    @mb.program(
        input_specs=[mb.TensorSpec((2,), types.fp16), mb.StateTensorSpec((2,), types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x: Any, sum: Any) -> Any:
        total = mb.add(x=x, y=mb.read_state(input=sum))
        return mb.identity(x=mb.coreml_update_state(state=sum, value=total), name="y")

    return ct.convert(program, minimum_deployment_target=ct.target.iOS18)


def test_state_is_kept_between_predictions(accumulator: MLModel) -> None:
    first, second = accumulator.make_state(), accumulator.make_state()
    for _ in range(2):
        result = accumulator.predict({"x": np.array([1.0, 2.0])}, first)["y"]
    assert result.tolist() == [2, 4]
    assert first.read_state("sum").tolist() == [2, 4]
    assert second.read_state("sum").tolist() == [0, 0]


def test_state_is_written(accumulator: MLModel) -> None:
    state = accumulator.make_state()
    state.write_state("sum", np.array([10.0, 20.0]))
    assert accumulator.predict({"x": np.ones(2)}, state)["y"].tolist() == [11, 21]
    with pytest.raises(RuntimeError, match="no state 'other'"):
        state.read_state("other")
    with pytest.raises(RuntimeError, match="does not match the shape"):
        state.write_state("sum", np.ones(3))
    compiled = CompiledMLModel(accumulator.get_compiled_model_path())
    assert compiled.predict({"x": np.ones(2)}, compiled.make_state())["y"].tolist() == [1, 1]


def test_stateful_model_asks_for_its_state(accumulator: MLModel) -> None:
    with pytest.raises(RuntimeError, match="make_state"):
        accumulator.predict({"x": np.ones(2)})


# --- compiled models


def test_compiled_model_outlives_its_package(scaled: Path, tmp_path: Path) -> None:
    destination = tmp_path / "moved.mlmodelc"
    assert compile_model(str(scaled), str(destination)) == str(destination)
    model = CompiledMLModel(str(destination))
    np.testing.assert_allclose(model.predict({"x": np.ones((1, 3), np.float16)})["y"], expected(np.ones((1, 3))))
    assert len(model.predict([{"x": np.ones((1, 3))}] * 2)) == 2
    assert destination.is_dir()


def test_temporary_compiled_model_goes_with_the_model(scaled: Path) -> None:
    model = MLModel(str(scaled))
    compiled = Path(model.get_compiled_model_path())
    assert compiled.is_dir()
    del model
    gc.collect()
    assert not compiled.exists()


def test_specification_without_weights_compiles() -> None:
    spec = convert(lambda x: mb.relu(x=x, name="y"), mb.TensorSpec(shape=(2,))).get_spec()
    model = CompiledMLModel(compile_model(spec))
    assert model.predict({"x": np.array([-1.0, 1.0])})["y"].tolist() == [0, 1]


def test_program_text_names_the_weights_place(scaled: Path) -> None:
    model = MLModel(str(scaled))
    text = (Path(model.get_compiled_model_path()) / "model.mil").read_text()
    assert "func main<ios17>(tensor<fp32, [1, 3]> x) {" in text
    assert 'BLOBFILE(path = tensor<string, []>("@model_path/weights/weight.bin"), offset' in text
    assert "} -> (y);" in text


def test_functions_of_a_package(tmp_path: Path) -> None:
    program = mil.Program()
    for name, operation in (("negate", lambda x: mb.mul(x=x, y=-1.0, name="y")), ("keep", lambda x: mb.relu(x=x))):
        function = mb.function(input_specs=[mb.TensorSpec((2,))], opset_version=ct.target.iOS18)(operation)
        program.add_function(name, function)
    program.default_function_name = "keep"
    program.export_as_multifunction = True
    path = tmp_path / "two.mlpackage"
    ct.convert(program, minimum_deployment_target=ct.target.iOS18).save(str(path))
    x = np.array([1.0, -1.0])
    assert next(iter(MLModel(str(path)).predict({"x": x}).values())).tolist() == [1, 0]
    model = MLModel(str(path), function_name="negate")
    assert model.predict({"x": x})["y"].tolist() == [-1, 1]
    compiled = model.get_compiled_model_path()
    assert CompiledMLModel(compiled, function_name="negate").predict({"x": x})["y"].tolist() == [-1, 1]
    with pytest.raises(RuntimeError, match="no function 'other'"):
        CompiledMLModel(compiled, function_name="other")


def test_asset_from_memory_and_from_path(scaled: Path) -> None:
    spec = load_spec(str(scaled)).SerializeToString()
    weights = (scaled / "Data" / "com.apple.CoreML" / "weights" / "weight.bin").read_bytes()
    loaded = MLModel(str(scaled))
    for asset in (
        MLModelAsset.from_memory(spec, {"weights/weight.bin": weights}),
        MLModelAsset.from_path(loaded.get_compiled_model_path()),
    ):
        y = CompiledMLModel.from_asset(asset).predict({"x": np.ones((1, 3))})["y"]
        np.testing.assert_allclose(y, expected(np.ones((1, 3))))
    with pytest.raises(RuntimeError, match="outside the model"):
        MLModelAsset.from_memory(spec, {"../weight.bin": weights})


def test_structure(scaled: Path) -> None:
    model = MLModel(str(scaled))
    structure = MLModelStructure.load_from_path(model.get_compiled_model_path())
    function = structure.program.functions["main"]
    assert [value.name for value in function.inputs] == ["x"]
    assert function.block.output_names == ["y"]
    operation = next(operation for operation in function.block.operations if operation.operator_name == "linear")
    assert operation.inputs["x"].bindings[0].name == "x"
    assert [value.name for value in operation.outputs] == ["y"]


# --- what is refused


def test_input_that_core_ml_would_refuse(scaled: Path) -> None:
    model = MLModel(str(scaled))
    with pytest.raises(RuntimeError, match=r"\(1 x 4\) does not match the shape \(1 x 3\)"):
        model.predict({"x": np.ones((1, 4))})
    with pytest.raises(RuntimeError, match="Feature x is required but not specified"):
        model.predict({})
    with pytest.raises(RuntimeError, match="value type not convertible"):
        CompiledMLModel(model.get_compiled_model_path()).predict({"x": "text"})


def test_flexible_shapes_are_checked() -> None:
    def build(x: Any) -> Any:
        return mb.relu(x=x, name="y")

    spec = mb.TensorSpec(shape=(1, mil.get_new_symbol()))
    enumerated = convert(build, spec, inputs=[ct.TensorType("x", shape=ct.EnumeratedShapes([(1, 3), (1, 5)]))])
    assert enumerated.predict({"x": np.ones((1, 5))})["y"].shape == (1, 5)
    with pytest.raises(RuntimeError, match=r"MultiArray Shape \(1 x 4\) was not in enumerated set of allowed shapes"):
        enumerated.predict({"x": np.ones((1, 4))})
    ranged = convert(build, spec, inputs=[ct.TensorType("x", shape=(1, ct.RangeDim(2, 5)))])
    assert ranged.predict({"x": np.ones((1, 4))})["y"].shape == (1, 4)
    with pytest.raises(RuntimeError, match=r"Size \(9\) of dimension \(1\) is not in allowed range \(2\.\.5\)"):
        ranged.predict({"x": np.ones((1, 9))})


def test_neural_network_is_not_loaded() -> None:
    with pytest.warns(RuntimeWarning, match="expected an ML program"):
        model = ct.convert(
            mb.program(input_specs=[mb.TensorSpec(shape=(2,))])(lambda x: mb.relu(x=x)), convert_to="neuralnetwork"
        )
    with pytest.raises(RuntimeError, match="expected an ML program"):
        model.predict({"x": np.ones(2)})


def test_model_compiled_by_apple_is_not_loaded(tmp_path: Path) -> None:
    apples = tmp_path / "apples.mlmodelc"
    apples.mkdir()
    (apples / "coremldata.bin").write_bytes(b"")
    with pytest.raises(RuntimeError, match="Apple's compiler"):
        CompiledMLModel(str(apples))
    with pytest.raises(RuntimeError, match="no such compiled model"):
        CompiledMLModel(str(tmp_path / "missing.mlmodelc"))


def test_what_only_apple_hardware_knows(scaled: Path) -> None:
    with pytest.raises(AppleHardwareError, match="compute plan can only come from Core ML"):
        MLComputePlan.load_from_path(MLModel(str(scaled)).get_compiled_model_path())
    for devices in (MLComputeDevice.get_all_compute_devices, MLModel.get_available_compute_devices):
        with pytest.raises(AppleHardwareError, match="devices can only come from Core ML"):
            devices()


# --- installing


def test_announces_itself_once(caplog: pytest.LogCaptureFixture) -> None:
    native.uninstall()
    with caplog.at_level(logging.WARNING):
        native.install(threads=1)
        native.install(threads=1)
    (record,) = caplog.records
    assert "not from Core ML" in record.message


def test_uninstall_leaves_coremltools_as_it_was(scaled: Path) -> None:
    native.uninstall()
    try:
        assert ct.models.model._MLModelProxy is None
        assert NAME not in sys.modules
        assert not hasattr(ct, "libcoremlpython")
        with pytest.raises(Exception, match="only supported on macOS"):
            MLModel(str(scaled)).predict({"x": np.ones((1, 3))})
        native.uninstall()
    finally:
        native.install(threads=1)


def test_it_does_not_claim_to_be_a_mac() -> None:
    assert not ct.utils._is_macos()


def test_macos_is_refused_unless_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    native.uninstall()
    try:
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(BenchError, match="use Core ML itself"):
            native.install()
        assert NAME not in sys.modules
        native.install(threads=1, force=True)
        assert NAME in sys.modules
    finally:
        monkeypatch.undo()
        native.uninstall()
        native.install(threads=1)


@pytest.mark.parametrize("order", ["before", "after"])
def test_before_and_after_coremltools_is_imported(order: str, scaled: Path) -> None:
    steps = ["native.install(threads=1)", "import coremltools as ct"]
    script = [
        "import sys",
        "from coreml_prune_bench.runtimes.portable import native",
        "assert 'coremltools' not in sys.modules",
        *(steps if order == "before" else reversed(steps)),
        f"print(ct.models.MLModel({str(scaled)!r}).predict({{'x': [[1, 2, 3]]}})['y'][0, 0])",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"{expected([[1, 2, 3]])[0, 0]}", done.stderr
    assert done.stderr.count("not from Core ML") == 1
