"""Reading a package: constants that stand in the program, and one clear line for every way a package can be broken."""

import json
import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.converters.mil.backend.mil.helper import create_tensor_value
from coremltools.proto import Model_pb2

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram import reader
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.mlprogram.values import Immediate
from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_torch

ELEMENTS = [
    np.float16, np.float32, np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.bool_,
]  # fmt: skip


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_immediate_keeps_its_elements_and_type(dtype: Any) -> None:
    array: np.ndarray = np.array([[0, 1, 100], [7, 5, 3]]).astype(dtype)
    constant = reader._constant(create_tensor_value(array))
    assert isinstance(constant, Immediate)
    assert isinstance(constant.value, np.ndarray)
    assert constant.value.dtype == dtype
    np.testing.assert_array_equal(constant.value, array)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return from_torch(tmp_path_factory.mktemp("linear") / "m.mlpackage", torch.nn.Linear(64, 48), (1, 64))


@pytest.fixture
def linear_copy(linear: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(linear, tmp_path / "m.mlpackage"))


def data(linear_copy: Path, name: str) -> Path:
    return linear_copy / "Data" / "com.apple.CoreML" / name


def rewrite(linear_copy: Path, change: object) -> None:
    spec = Model_pb2.Model.FromString(data(linear_copy, "model.mlmodel").read_bytes())
    change(spec)  # type: ignore[operator]
    data(linear_copy, "model.mlmodel").write_bytes(spec.SerializeToString())


def move_weights(spec: Model_pb2.Model, offset: int) -> None:
    function = spec.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        if operation.type == "const" and operation.attributes["val"].WhichOneof("value") == "blobFileValue":
            operation.attributes["val"].blobFileValue.offset = offset


def test_missing_package(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"gone\.mlpackage: no such package"):
        load(tmp_path / "gone.mlpackage")


def test_folder_that_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"neither a \.mlpackage nor a \.aimodel"):
        load(tmp_path)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", json.dumps({"rootModelIdentifier": "a", "itemInfoEntries": {}})])
def test_damaged_manifest(linear_copy: Path, manifest: str) -> None:
    (linear_copy / "Manifest.json").write_text(manifest)
    with pytest.raises(PackageError, match=r"Manifest\.json: does not name a root model"):
        load(linear_copy)


def test_missing_model_file(linear_copy: Path) -> None:
    data(linear_copy, "model.mlmodel").unlink()
    with pytest.raises(PackageError, match=r"model\.mlmodel that its manifest names is missing"):
        load(linear_copy)


def test_model_file_that_is_no_protobuf(linear_copy: Path) -> None:
    data(linear_copy, "model.mlmodel").write_bytes(b"\xff" * 100)
    with pytest.raises(PackageError, match="not a Core ML model specification"):
        load(linear_copy)


def test_neural_network_is_no_ml_program(linear_copy: Path) -> None:
    rewrite(linear_copy, lambda spec: spec.neuralNetwork.SetInParent())
    with pytest.raises(PackageError, match="type neuralNetwork, expected an ML program"):
        load(linear_copy)


def test_missing_weight_file(linear_copy: Path) -> None:
    data(linear_copy, "weights/weight.bin").unlink()
    with pytest.raises(PackageError, match=r"weights/weight\.bin is missing"):
        load(linear_copy)


def test_truncated_weight_file(linear_copy: Path) -> None:
    file = data(linear_copy, "weights/weight.bin")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(PackageError, match=r"of 1000: the file is truncated|outside the file of 1000 bytes"):
        load(linear_copy)


@pytest.mark.parametrize(
    ("offset", "message"), [(1 << 40, "lies outside the file"), (128, "not the start of a weight")]
)
def test_offset_that_is_no_weight(linear_copy: Path, offset: int, message: str) -> None:
    rewrite(linear_copy, lambda spec: move_weights(spec, offset))
    for read in (load, read_package):
        with pytest.raises(PackageError, match=message):
            read(linear_copy)


def test_weight_of_another_shape(linear_copy: Path) -> None:
    rewrite(linear_copy, lambda spec: move_weights(spec, 64))  # weight and bias now share one blob
    with pytest.raises(PackageError, match=r"has \d+ bytes, expected \d+"):
        load(linear_copy)


def test_program_is_read_without_its_weights(linear_copy: Path) -> None:
    data(linear_copy, "weights/weight.bin").unlink()
    assert [operation.type for operation in reader.read(linear_copy).operations].count("linear") == 1


@pytest.mark.parametrize("kind", ["sparse", "palettized", "affine-quantized"])
def test_compressed_weight_computes_what_coremltools_decompresses(kind: str, linear: Path, tmp_path: Path) -> None:
    configs = {
        "sparse": (cto.prune_weights, cto.OpMagnitudePrunerConfig(target_sparsity=0.75)),
        "palettized": (cto.palettize_weights, cto.OpPalettizerConfig(mode="uniform", nbits=6)),
        "affine-quantized": (
            cto.linear_quantize_weights,
            cto.OpLinearQuantizerConfig(mode="linear", weight_threshold=0),
        ),
    }
    compress, config = configs[kind]
    compressed = compress(ct.models.MLModel(str(linear), skip_model_load=True), cto.OptimizationConfig(config))
    compressed.save(str(tmp_path / "c.mlpackage"))
    cto.decompress_weights(compressed).save(str(tmp_path / "d.mlpackage"))
    x = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    result, expected = (load(tmp_path / name).predict({"x": x})["y"] for name in ("c.mlpackage", "d.mlpackage"))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    assert kind in {weight.storage for weight in read_package(tmp_path / "c.mlpackage").weights}
