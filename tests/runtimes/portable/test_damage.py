"""Programs that contradict themselves or compute what nothing can hold, and inputs that are not as declared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.proto import MIL_pb2
from coremltools.proto.FeatureTypes_pb2 import ImageFeatureType
from PIL import Image

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.runtimes.portable import load
from tests.damage import block, declare, find, named, refusal, rewrite
from tests.packages import from_mil, from_torch

PROGRAMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a value used before it is defined": (
        lambda spec: set_reference(find(spec, "relu"), "x", "y"),
        "value 'y' is used before it is defined",
    ),
    "a value that is its own argument": (
        lambda spec: set_reference(find(spec, "relu"), "x", find(spec, "relu").outputs[0].name),
        "value 'input' is used before it is defined",
    ),
    "a value that nothing defines": (
        lambda spec: set_reference(find(spec, "relu"), "x", "nothing"),
        "value 'nothing' is used before it is defined",
    ),
    "a value defined twice": (
        lambda spec: block(spec).operations.add().CopyFrom(find(spec, "relu")),
        "is defined twice",
    ),
    "a value without a name": (
        lambda spec: setattr(find(spec, "relu").outputs[0], "name", ""),
        "a value is called ''",
    ),
    "a name that could be the translation's own": (
        lambda spec: setattr(find(spec, "relu").outputs[0], "name", "y/half"),
        "a value is called 'y/half'",
    ),
    "an argument that is missing": (
        lambda spec: find(spec, "linear").inputs.pop("weight"),
        "operation 'linear' (var_6): parameter 'weight' is missing",
    ),
    "a constant without a value": (
        lambda spec: named(spec, "small_bias").attributes.pop("val"),
        "operation 'const' (small_bias)",
    ),
    "an operation that nobody knows": (
        lambda spec: setattr(find(spec, "relu"), "type", "frobnicate"),
        "operation 'frobnicate' (input) is not one that the portable runtime knows",
    ),
    "an element type that nobody knows": (
        lambda spec: setattr(named(spec, "y").outputs[0].type.tensorType, "dataType", 99),
        "the type of 'y' cannot be read: element type 99 is not known",
    ),
    "an input's element type that nobody knows": (
        lambda spec: setattr(spec.description.input[0].type.multiArrayType, "dataType", 99),
        "the description of 'x' cannot be read",
    ),
    "floats in a constant of integers": (
        lambda spec: setattr(
            named(spec, "small_bias").attributes["val"].type.tensorType, "dataType", MIL_pb2.DataType.INT32
        ),
        "operation 'const' (small_bias) cannot be read: floats in a constant of type int32",
    ),
    "fewer elements than the shape says": (
        lambda spec: declare(named(spec, "small_bias").attributes["val"].type, 3),
        "operation 'const' (small_bias) cannot be read: a constant of shape [3] has 2 elements",
    ),
    "text where numbers belong": (
        lambda spec: set_text(named(spec, "small_bias").attributes["val"]),
        "ONNX Runtime cannot load the program",
    ),
    "a weight of another shape": (
        lambda spec: set_reference(find(spec, "linear"), "weight", "small_weight"),
        "ONNX Runtime cannot load the program",
    ),
    "a result that nothing defines": (
        lambda spec: block(spec).outputs.append("nothing"),
        "value 'nothing' is used before it is defined",
    ),
    "an input that the model does not declare": (
        lambda spec: spec.description.input.pop(),
        "the program's input 'x' is not declared by the model",
    ),
    "an input that is a label": (
        lambda spec: make_label(spec),
        "input 'x' is declared as label, expected an image or an array",
    ),
    "an operation set without a block": (
        lambda spec: setattr(spec.mlProgram.functions["main"], "opset", "CoreML99"),
        "function 'main' has no block for its operation set 'CoreML99'",
    ),
}


def set_reference(operation: Any, parameter: str, name: str) -> None:
    operation.inputs[parameter].arguments[0].name = name


def set_text(value: Any) -> None:
    value.type.tensorType.dataType = MIL_pb2.DataType.STRING
    value.immediateValue.tensor.strings.values[:] = ["one", "two"]


def make_label(spec: Any) -> None:
    spec.description.predictedFeatureName = "x"
    spec.description.input[0].type.stringType.SetInParent()


@pytest.mark.parametrize("damage", PROGRAMS)
def test_a_program_that_contradicts_itself(copy: Path, damage: str) -> None:
    change, message = PROGRAMS[damage]
    rewrite(copy, change)
    assert message in refusal(copy)


def test_an_image_output_that_is_none(tmp_path: Path) -> None:
    package = from_torch(
        tmp_path / "m.mlpackage",
        torch.nn.ReLU(),
        (1, 3, 8, 6),
        inputs=[ct.ImageType("x", (1, 3, 8, 6))],
        outputs=[ct.ImageType("y")],
    )
    assert load(package).predict({"x": Image.new("RGB", (6, 8))})["y"].size == (6, 8)

    def change(spec: Any) -> None:
        spec.description.output[0].type.imageType.colorSpace = ImageFeatureType.GRAYSCALE

    rewrite(package, change)
    message = r"output 'y' is \[1, 3, 8, 6\], expected \[1, 1, height, width\] for an image of GRAYSCALE"
    with pytest.raises(PackageError, match=message):
        load(package).predict({"x": Image.new("RGB", (6, 8))})


ENORMOUS: dict[str, Callable[[Any], Any]] = {
    "fill": lambda x: mb.add(x=x, y=mb.reduce_sum(x=mb.fill(shape=[7, 5], value=1.0))),
    "tile": lambda x: mb.add(x=x, y=mb.reduce_sum(x=mb.tile(x=np.ones((7, 5), np.float32), reps=[7, 5]))),
    "range_1d": lambda x: mb.add(x=x, y=mb.reduce_sum(x=mb.range_1d(start=0.0, end=7.0, step=1.0))),
    "pad": lambda x: mb.add(x=x, y=mb.reduce_sum(x=mb.pad(x=np.ones(3, np.float32), pad=[7, 7]))),
}


@pytest.mark.parametrize("operation", ENORMOUS)
def test_a_constant_too_large_to_compute(operation: str, tmp_path: Path) -> None:
    package = from_mil(tmp_path / "m.mlpackage", ENORMOUS[operation], (3,))
    load(package, cache=False)

    def change(spec: Any) -> None:
        for constant in (o.attributes["val"] for o in block(spec).operations if o.type == "const"):
            tensor = constant.immediateValue.tensor
            kind = tensor.WhichOneof("value")
            if kind in ("ints", "floats"):
                held = getattr(tensor, kind).values
                held[:] = [2_000_000_000 if value == 7 else value for value in held]

    rewrite(package, change)
    message = refusal(package)
    assert f"operation '{operation}'" in message
    assert "MiB of constants" in message


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"y": np.ones((1, 8), np.float32)}, r"expected inputs \['x'\], got \['y'\]"),
        ({"x": np.ones((8, 1), np.float32)}, r"'x' expects shape \[1, 8\], got shape \[8, 1\]"),
        ({"x": np.ones((1, 8), np.complex64)}, "'x' expects float32 of shape .*, got complex64"),
        ({"x": np.array([["a"] * 8])}, "'x' expects float32 of shape .*, got <U1"),
        ({"x": None}, "'x' expects"),
        ({"x": [[1.0, 2.0], [3.0]]}, "'x' expects"),
        ({"x": Image.new("RGB", (8, 1))}, "'x' expects shape"),
    ],
)
def test_an_input_that_is_not_what_is_declared(intact: Path, inputs: dict[str, Any], message: str) -> None:
    model = load(intact)
    with pytest.raises(PackageError, match=message):
        model.predict(inputs)
    with pytest.raises(PackageError):
        model.predict_batch(inputs)


def test_integers_that_do_not_fit_are_refused_not_wrapped(tmp_path: Path) -> None:
    package = from_mil(tmp_path / "m.mlpackage", lambda x: mb.add(x=x, y=1), (2,), dtype=types.int32)
    model = load(package)
    assert model.predict({"x": np.array([1, 2], np.int64)})["add_0"].tolist() == [2, 3]
    with pytest.raises(PackageError, match="'x' expects int32 of shape"):
        model.predict({"x": np.array([1, 1 << 40], np.int64)})
