"""What callers of coremltools get on an OS without Core ML, and what is refused."""

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
from coremltools.models.compute_plan import MLComputePlan
from PIL import Image

from coreml_prune_bench.runtimes.portable import native
from coreml_prune_bench.runtimes.portable.native.proxies import AppleHardwareError
from tests.packages import from_torch
from tests.runtimes.portable.native.models import convert, expected


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
        native.install(precision="float16", threads=1, force=True)
        assert MLModel(path).predict({"x": np.array([1e-4])})["y"][0] == 0
    finally:
        native.install(threads=1, force=True)


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
