"""Files that are damaged or mean harm: every kind of damage is refused in a line that names what is wrong.

`test_fuzz.py` looks for kinds of damage that nobody has thought of; here are those that somebody has.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.proto import MIL_pb2, Model_pb2

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.runtimes.portable import load
from tests.damage import SPECIFICATION, WEIGHTS, TwoLayers, block, declare, named, refusal, rewrite
from tests.packages import from_torch

U64 = (1 << 64) - 1


def test_a_file_in_the_place_of_a_package(copy: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", copy))
    assert "is an archive, expected the folder of a .mlpackage or .aimodel; unpack it first" in refusal(archive)


@pytest.mark.parametrize(
    "path", ["../../secret", "/etc/hostname", "com.apple.CoreML/link", "a\0b", "x" * 5000, ".", 5, None, ["a"]]
)
def test_a_manifest_that_leads_elsewhere(copy: Path, path: Any) -> None:
    (copy.parent / "secret").write_bytes((copy / SPECIFICATION).read_bytes())
    (copy / "Data/com.apple.CoreML/link").symlink_to(copy.parent / "secret")
    manifest = json.loads((copy / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
    (copy / "Manifest.json").write_text(json.dumps(manifest))
    message = refusal(copy)
    words = ["lies outside the package", "no file can have", "is missing", "does not name a root model"]
    assert any(word in message for word in words)
    assert ("lies outside the package" in message) == (
        path in ("../../secret", "/etc/hostname", "com.apple.CoreML/link")
    )


def test_a_manifest_of_brackets(copy: Path) -> None:
    (copy / "Manifest.json").write_text("[" * 200_000)
    assert "does not name a root model" in refusal(copy)


@pytest.mark.parametrize(
    "file", ["@model_path/../../../secret", "/etc/hostname", "@model_path/link", "a\0b", "x" * 5000]
)
def test_weights_that_lie_elsewhere(copy: Path, file: str) -> None:
    (copy.parent / "secret").write_bytes((copy / WEIGHTS).read_bytes())
    (copy / "Data/com.apple.CoreML/link").symlink_to(copy.parent / "secret")

    def change(spec: Any) -> None:
        named(spec, "large_weight").attributes["val"].blobFileValue.fileName = file

    rewrite(copy, change)
    message = refusal(copy)
    assert "lies outside the package" in message or "no file can have" in message


def test_a_package_behind_a_link_is_the_package(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link.mlpackage").symlink_to(copy)
    assert load(tmp_path / "link.mlpackage").output_names == ("y",)


@pytest.mark.parametrize("kept", [0, 1, 63, 64, 100, -1])
def test_a_truncated_weight_file(copy: Path, kept: int) -> None:
    content = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(content[:kept])
    assert "large_weight" in refusal(copy)
    with pytest.raises(PackageError, match="large_weight"):
        read_package(copy)


@pytest.mark.parametrize("offset", [U64, U64 - 63, 1 << 63, 1 << 40, 0, 65])
def test_an_offset_that_is_no_weight(copy: Path, offset: int) -> None:
    def change(spec: Any) -> None:
        named(spec, "large_weight").attributes["val"].blobFileValue.offset = offset

    rewrite(copy, change)
    assert f"'large_weight' at offset {offset}" in refusal(copy)


@pytest.mark.parametrize(("field", "place"), [("size", 8), ("offset", 16)])
@pytest.mark.parametrize("value", [0, 1, 1 << 20, 1 << 63, U64])
def test_metadata_of_a_weight_that_lie(copy: Path, field: str, place: int, value: int) -> None:
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[64 + place : 64 + place + 8] = value.to_bytes(8, "little")
    (copy / WEIGHTS).write_bytes(content)
    if (field, value) in (("offset", 0), ("offset", 1)):
        load(copy)  # inside the file, so nothing tells that these are not the weight's bytes
    else:
        assert "large_weight" in refusal(copy)


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
    assert "the weight 'large_weight" in (message := refusal(package))
    assert "not a number (NaN)" in message
    with pytest.raises(PackageError, match="'large_weight"):
        read_package(package)


def test_a_small_weight_that_is_not_a_number_is_named(copy: Path) -> None:
    def change(spec: Any) -> None:
        named(spec, "small_bias").attributes["val"].immediateValue.tensor.floats.values[1] = np.nan

    rewrite(copy, change)
    assert "operation 'const' (small_bias) cannot be read: it has elements that are not a number (NaN)" in refusal(copy)


@pytest.mark.parametrize("shape", [(10**12,), (1 << 16, 1 << 16), (U64, 0), (U64, U64), (1,) * 100])
@pytest.mark.parametrize("output", ["large_weight", "y"])
def test_a_declared_shape_that_nothing_can_have(copy: Path, output: str, shape: tuple[int, ...]) -> None:
    rewrite(copy, lambda spec: declare(named(spec, output).outputs[0].type, *shape))
    assert f"the type of '{output}' cannot be read" in refusal(copy)


@pytest.mark.parametrize("shape", [(1, 10**12), (1, -8), (1,) * 100])
def test_a_declared_input_that_nothing_can_be(copy: Path, shape: tuple[int, ...]) -> None:
    def change(spec: Any) -> None:
        spec.description.input[0].type.multiArrayType.shape[:] = shape

    rewrite(copy, change)
    assert "the description of 'x' cannot be read" in refusal(copy)


def test_a_name_that_is_a_book(copy: Path) -> None:
    rewrite(copy, lambda spec: setattr(named(spec, "y").outputs[0], "name", "y" * 1001))
    assert "a value is called 'yyyyyyyyyyyyyyyyyyyy'... in 1,001 letters" in refusal(copy)


def test_too_many_inputs_and_outputs(copy: Path) -> None:
    def change(spec: Any) -> None:
        for _ in range(10_000):
            spec.description.output.add().CopyFrom(spec.description.output[0])

    rewrite(copy, change)
    assert "function 'main' has more than 10,000 inputs and outputs" in refusal(copy)


def test_too_many_operations(copy: Path) -> None:
    def change(spec: Any) -> None:
        last = block(spec).operations[-1]
        for _ in range(100_000):
            block(spec).operations.add(type=last.type)

    rewrite(copy, change)
    assert "function 'main' has more than 100,000 operations" in refusal(copy)


def test_blocks_nested_beyond_reading(copy: Path) -> None:
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
    (copy / SPECIFICATION).write_bytes((copy / SPECIFICATION).read_bytes() + nested)
    assert "is not a Core ML model specification" in refusal(copy)


def field(message: Any, name: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[name].number)


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
