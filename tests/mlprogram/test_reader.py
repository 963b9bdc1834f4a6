"""Reading a package: every way a constant is stored, and one clear line for every way a package can be broken."""

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
from coremltools.libmilstoragepython import _BlobStorageWriter
from coremltools.proto import Model_pb2

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram import decompress, reader
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.mlprogram.values import Immediate, Stored, TensorType
from coreml_prune_bench.mlprogram.weights import Weights
from coreml_prune_bench.runtimes.portable import load
from tests.runtimes.packages import from_torch

WRITERS = {
    np.float16: "write_fp16_data",
    np.float32: "write_float_data",
    np.uint8: "write_uint8_data",
    np.int8: "write_int8_data",
    np.int16: "write_int16_data",
    np.uint16: "write_uint16_data",
    np.int32: "write_int32_data",
    np.uint32: "write_uint32_data",
}
MIL = {np.float16: "fp16", np.float32: "fp32"}


@pytest.mark.parametrize("dtype", [*WRITERS, np.bool_])
def test_immediate_keeps_its_elements_and_type(dtype: Any) -> None:
    array: np.ndarray = np.array([[0, 1, 100], [7, 5, 3]]).astype(dtype)
    constant = reader._constant(create_tensor_value(array))
    assert isinstance(constant, Immediate)
    assert isinstance(constant.value, np.ndarray)
    assert constant.value.dtype == dtype
    np.testing.assert_array_equal(constant.value, array)


@pytest.mark.parametrize("dtype", WRITERS)
def test_stored_constant_keeps_its_elements_and_type(dtype: Any, tmp_path: Path) -> None:
    array: np.ndarray = np.array([[0, 1, 100], [7, 5, 3]]).astype(dtype)
    flat = array.ravel().view(np.uint16) if dtype == np.float16 else array.ravel()
    writer = _BlobStorageWriter(str(tmp_path / "weight.bin"))
    offset = getattr(writer, WRITERS[dtype])(np.ascontiguousarray(flat))
    del writer
    type_ = TensorType(MIL.get(dtype, np.dtype(dtype).name), (2, 3))
    result = Weights(tmp_path, tmp_path).array(Stored(type_, "@model_path/weight.bin", offset))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, array)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return from_torch(tmp_path_factory.mktemp("linear") / "m.mlpackage", torch.nn.Linear(64, 48), (1, 64))


@pytest.fixture
def package(linear: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(linear, tmp_path / "m.mlpackage"))


def data(package: Path, name: str) -> Path:
    return package / "Data" / "com.apple.CoreML" / name


def rewrite(package: Path, change: object) -> None:
    spec = Model_pb2.Model.FromString(data(package, "model.mlmodel").read_bytes())
    change(spec)  # type: ignore[operator]
    data(package, "model.mlmodel").write_bytes(spec.SerializeToString())


def move_weights(spec: Model_pb2.Model, offset: int) -> None:
    function = spec.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        if operation.type == "const" and operation.attributes["val"].WhichOneof("value") == "blobFileValue":
            operation.attributes["val"].blobFileValue.offset = offset


def test_missing_package(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"gone\.mlpackage: no such package"):
        load(tmp_path / "gone.mlpackage")


def test_folder_that_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"not a \.mlpackage"):
        load(tmp_path)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", json.dumps({"rootModelIdentifier": "a", "itemInfoEntries": {}})])
def test_damaged_manifest(package: Path, manifest: str) -> None:
    (package / "Manifest.json").write_text(manifest)
    with pytest.raises(PackageError, match=r"Manifest\.json: does not name a root model"):
        load(package)


def test_missing_model_file(package: Path) -> None:
    data(package, "model.mlmodel").unlink()
    with pytest.raises(PackageError, match=r"model\.mlmodel that its manifest names is missing"):
        load(package)


def test_model_file_that_is_no_protobuf(package: Path) -> None:
    data(package, "model.mlmodel").write_bytes(b"\xff" * 100)
    with pytest.raises(PackageError, match="not a Core ML model specification"):
        load(package)


def test_neural_network_is_no_ml_program(package: Path) -> None:
    rewrite(package, lambda spec: spec.neuralNetwork.SetInParent())
    with pytest.raises(PackageError, match="type neuralNetwork, expected an ML program"):
        load(package)


def test_missing_weight_file(package: Path) -> None:
    data(package, "weights/weight.bin").unlink()
    with pytest.raises(PackageError, match=r"weights/weight\.bin is missing"):
        load(package)


def test_truncated_weight_file(package: Path) -> None:
    file = data(package, "weights/weight.bin")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(PackageError, match=r"of 1000: the file is truncated|outside the file of 1000 bytes"):
        load(package)


@pytest.mark.parametrize(
    ("offset", "message"), [(1 << 40, "lies outside the file"), (128, "not the start of a weight")]
)
def test_offset_that_is_no_weight(package: Path, offset: int, message: str) -> None:
    rewrite(package, lambda spec: move_weights(spec, offset))
    for read in (load, read_package):
        with pytest.raises(PackageError, match=message):
            read(package)


def test_weight_of_another_shape(package: Path) -> None:
    rewrite(package, lambda spec: move_weights(spec, 64))  # weight and bias now share one blob
    with pytest.raises(PackageError, match=r"has \d+ bytes, expected \d+"):
        load(package)


def test_program_is_read_without_its_weights(package: Path) -> None:
    data(package, "weights/weight.bin").unlink()
    assert [operation.type for operation in reader.read(package).operations].count("linear") == 1


# The example in the definition of constexpr_sparse_to_dense: elements 2 and 3 of 5 are set.
def test_sparse_weight_of_the_definition() -> None:
    mask = np.array([0b01100], np.uint8)
    assert decompress.sparse_to_dense(np.array([7.0, 8.0]), mask, (5,)).tolist() == [0, 0, 7, 8, 0]
    with pytest.raises(ValueError, match="2 bits set for 1"):
        decompress.sparse_to_dense(np.array([7.0]), mask, (5,))
    with pytest.raises(ValueError, match="after the last element"):
        decompress.mask_bits(np.array([0b11100], np.uint8), (4,))


# The example in the definition of constexpr_lut_to_dense, with 11 for the fifth index; and indices across bytes.
def test_palettized_weight_of_the_definition() -> None:
    lut = np.array([10.0, 11.0, 12.0, 13.0])
    indices = np.array([0b01101100, 0b11], np.uint8)
    assert decompress.lut_to_dense(lut, indices, (5,)).tolist() == [10, 13, 12, 11, 13]
    six_bits = np.array([0b11_000001, 0b0000], np.uint8)  # 1, then 0b000011
    assert decompress.lut_to_dense(np.arange(64), six_bits, (2,)).tolist() == [1, 3]


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
