"""Compiled models, functions, assets and structure, on an OS without Core ML."""

import gc
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil import mil
from coremltools.models import CompiledMLModel, MLModel
from coremltools.models.compute_plan import MLModelStructure
from coremltools.models.model import MLModelAsset
from coremltools.models.utils import compile_model, load_spec

from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.runtimes.portable.native.compiled import compile_memory, package_in
from tests.runtimes.portable.native.models import convert, expected


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


def test_the_same_model_from_memory_is_the_same_package(scaled: Path) -> None:
    """Else what was translated of it is never found again, and the cache fills with copies."""
    spec = load_spec(str(scaled)).SerializeToString()
    weights = (scaled / "Data" / "com.apple.CoreML" / "weights" / "weight.bin").read_bytes()
    folders = [package_in(compile_memory(spec, {"weights/weight.bin": weights})) for _ in range(2)]
    other = package_in(compile_memory(spec, {"weights/weight.bin": weights + bytes(1)}))
    assert tree_hash(folders[0]) == tree_hash(folders[1]) != tree_hash(other)
    identifiers = {(folder / "Manifest.json").read_bytes() for folder in folders}
    assert len(identifiers) == 1


def test_structure(scaled: Path) -> None:
    model = MLModel(str(scaled))
    structure = MLModelStructure.load_from_path(model.get_compiled_model_path())
    function = structure.program.functions["main"]
    assert [value.name for value in function.inputs] == ["x"]
    assert function.block.output_names == ["y"]
    operation = next(operation for operation in function.block.operations if operation.operator_name == "linear")
    assert operation.inputs["x"].bindings[0].name == "x"
    assert [value.name for value in operation.outputs] == ["y"]
