"""Packages that are damaged or mean harm: every kind of damage is refused in a line that names what is wrong.

`test_portable_fuzz.py` looks for kinds of damage that nobody has thought of; here are those that somebody has.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.proto import MIL_pb2, Model_pb2
from coremltools.proto.FeatureTypes_pb2 import ImageFeatureType
from PIL import Image

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.runtimes.portable import load
from tests.runtimes.packages import from_mil, from_torch

SPECIFICATION = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
U64 = (1 << 64) - 1


class TwoLayers(torch.nn.Module):
    """A layer whose weight stands in weight.bin, and one whose weight is small enough for the program itself."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = torch.nn.Linear(8, 4), torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.small(torch.relu(self.large(x)))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return from_torch(tmp_path_factory.mktemp("intact") / "m.mlpackage", TwoLayers(), (1, 8))


@pytest.fixture
def package(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "m.mlpackage"))


def rewrite(package: Path, change: Callable[[Any], None]) -> None:
    spec = Model_pb2.Model.FromString((package / SPECIFICATION).read_bytes())
    change(spec)
    (package / SPECIFICATION).write_bytes(spec.SerializeToString())


def block(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def find(spec: Any, type_: str) -> Any:
    return next(operation for operation in block(spec).operations if operation.type == type_)


def named(spec: Any, output: str) -> Any:
    return next(o for o in block(spec).operations if o.outputs and o.outputs[0].name == output)


def refused(package: Path) -> str:
    with pytest.raises(PackageError) as raised:
        load(package, cache=False)
    message = str(raised.value)
    assert str(package) in message
    return message


# --- the package's files


def test_a_file_in_the_place_of_a_package(package: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", package))
    assert "is a file, expected the folder of a .mlpackage; unpack an archive first" in refused(archive)


@pytest.mark.parametrize(
    "path", ["../../secret", "/etc/hostname", "com.apple.CoreML/link", "a\0b", "x" * 5000, ".", 5, None, ["a"]]
)
def test_a_manifest_that_leads_elsewhere(package: Path, path: Any) -> None:
    (package.parent / "secret").write_bytes((package / SPECIFICATION).read_bytes())
    (package / "Data/com.apple.CoreML/link").symlink_to(package.parent / "secret")
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
    (package / "Manifest.json").write_text(json.dumps(manifest))
    message = refused(package)
    words = ["lies outside the package", "no file can have", "is missing", "does not name a root model"]
    assert any(word in message for word in words)
    assert ("lies outside the package" in message) == (
        path in ("../../secret", "/etc/hostname", "com.apple.CoreML/link")
    )


def test_a_manifest_of_brackets(package: Path) -> None:
    (package / "Manifest.json").write_text("[" * 200_000)
    assert "does not name a root model" in refused(package)


@pytest.mark.parametrize(
    "file", ["@model_path/../../../secret", "/etc/hostname", "@model_path/link", "a\0b", "x" * 5000]
)
def test_weights_that_lie_elsewhere(package: Path, file: str) -> None:
    (package.parent / "secret").write_bytes((package / WEIGHTS).read_bytes())
    (package / "Data/com.apple.CoreML/link").symlink_to(package.parent / "secret")

    def change(spec: Any) -> None:
        named(spec, "large_weight").attributes["val"].blobFileValue.fileName = file

    rewrite(package, change)
    message = refused(package)
    assert "lies outside the package" in message or "no file can have" in message


def test_a_package_behind_a_link_is_the_package(package: Path, tmp_path: Path) -> None:
    (tmp_path / "link.mlpackage").symlink_to(package)
    assert load(tmp_path / "link.mlpackage").output_names == ("y",)


@pytest.mark.parametrize("kept", [0, 1, 63, 64, 100, -1])
def test_a_truncated_weight_file(package: Path, kept: int) -> None:
    content = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(content[:kept])
    assert "large_weight" in refused(package)
    with pytest.raises(PackageError, match="large_weight"):
        read_package(package)


@pytest.mark.parametrize("offset", [U64, U64 - 63, 1 << 63, 1 << 40, 0, 65])
def test_an_offset_that_is_no_weight(package: Path, offset: int) -> None:
    def change(spec: Any) -> None:
        named(spec, "large_weight").attributes["val"].blobFileValue.offset = offset

    rewrite(package, change)
    assert f"'large_weight' at offset {offset}" in refused(package)


@pytest.mark.parametrize(("field", "place"), [("size", 8), ("offset", 16)])
@pytest.mark.parametrize("value", [0, 1, 1 << 20, 1 << 63, U64])
def test_metadata_of_a_weight_that_lie(package: Path, field: str, place: int, value: int) -> None:
    content = bytearray((package / WEIGHTS).read_bytes())
    content[64 + place : 64 + place + 8] = value.to_bytes(8, "little")
    (package / WEIGHTS).write_bytes(content)
    if (field, value) in (("offset", 0), ("offset", 1)):
        load(package)  # inside the file, so nothing tells that these are not the weight's bytes
    else:
        assert "large_weight" in refused(package)


# --- numbers


@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
def test_a_weight_that_is_not_a_number_is_named_and_infinity_is_one(precision: str, tmp_path: Path) -> None:
    options = {"compute_precision": getattr(ct.precision, precision)}
    package = from_torch(tmp_path / "m.mlpackage", TwoLayers(), (1, 8), **options)
    dtype = np.dtype(precision.lower())
    content = bytearray((package / WEIGHTS).read_bytes())
    content[128 : 128 + dtype.itemsize] = np.array(np.inf, dtype).tobytes()  # the first element of the first weight
    (package / WEIGHTS).write_bytes(content)
    x = np.array([[0, 1, 1, 1, 1, 1, 1, 1]], np.float32)
    assert np.isnan(load(package, cache=False).predict({"x": x})["y"]).any()  # 0 times infinity, computed as it is
    content[128 : 128 + dtype.itemsize] = np.array(-np.nan, dtype).tobytes()
    (package / WEIGHTS).write_bytes(content)
    assert "the weight 'large_weight" in (message := refused(package))
    assert "not a number (NaN)" in message
    with pytest.raises(PackageError, match="'large_weight"):
        read_package(package)


def test_a_small_weight_that_is_not_a_number_is_named(package: Path) -> None:
    def change(spec: Any) -> None:
        named(spec, "small_bias").attributes["val"].immediateValue.tensor.floats.values[1] = np.nan

    rewrite(package, change)
    assert "operation 'const' (small_bias) cannot be read: it has elements that are not a number (NaN)" in refused(
        package
    )


# --- sizes


def declare(type_: Any, *shape: int) -> None:
    del type_.tensorType.dimensions[:]
    for size in shape:
        type_.tensorType.dimensions.add().constant.size = size
    type_.tensorType.rank = len(shape)


@pytest.mark.parametrize("shape", [(10**12,), (1 << 16, 1 << 16), (U64, 0), (U64, U64), (1,) * 100])
@pytest.mark.parametrize("output", ["large_weight", "y"])
def test_a_declared_shape_that_nothing_can_have(package: Path, output: str, shape: tuple[int, ...]) -> None:
    rewrite(package, lambda spec: declare(named(spec, output).outputs[0].type, *shape))
    assert f"the type of '{output}' cannot be read" in refused(package)


@pytest.mark.parametrize("shape", [(1, 10**12), (1, -8), (1,) * 100])
def test_a_declared_input_that_nothing_can_be(package: Path, shape: tuple[int, ...]) -> None:
    def change(spec: Any) -> None:
        spec.description.input[0].type.multiArrayType.shape[:] = shape

    rewrite(package, change)
    assert "the description of 'x' cannot be read" in refused(package)


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
    message = refused(package)
    assert f"operation '{operation}'" in message
    assert "beyond 2 GiB" in message


def test_too_many_operations(package: Path) -> None:
    def change(spec: Any) -> None:
        last = block(spec).operations[-1]
        for _ in range(200_000):
            block(spec).operations.add(type=last.type)

    rewrite(package, change)
    assert "function 'main' has more than 200,000 operations" in refused(package)


def test_blocks_nested_beyond_reading(package: Path) -> None:
    """Protobuf ends at a hundred messages inside each other, well before Python's stack does."""
    fields = [
        field(Model_pb2.Model, "mlProgram"),
        field(MIL_pb2.Program, "functions"),
        field(MIL_pb2.Program.FunctionsEntry, "value"),
        field(MIL_pb2.Function, "block_specializations"),
        field(MIL_pb2.Function.BlockSpecializationsEntry, "value"),
        field(MIL_pb2.Block, "operations"),
        *[field(MIL_pb2.Operation, "blocks"), field(MIL_pb2.Block, "operations")] * 2000,
    ]
    nested = b""
    for number in reversed(fields):
        nested = varint(number << 3 | 2) + varint(len(nested)) + nested
    (package / SPECIFICATION).write_bytes((package / SPECIFICATION).read_bytes() + nested)
    assert "is not a Core ML model specification" in refused(package)


def field(message: Any, name: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[name].number)


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


# --- the program


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
def test_a_program_that_contradicts_itself(package: Path, damage: str) -> None:
    change, message = PROGRAMS[damage]
    rewrite(package, change)
    assert message in refused(package)


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


# --- what a caller gives


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
