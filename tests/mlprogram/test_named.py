"""What somebody gives in place of a package is called by its name, with what to do about it."""

import shutil
from pathlib import Path

import pytest
from coremltools.proto import Model_pb2

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.runtimes.portable import load
from tests.damage import SPECIFICATION, WEIGHTS, refusal, rewrite

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 41193984\n"
ANNEX = b"/annex/objects/MD5E-s41193984--d41d8cd98f00b204e9800998ecf8427e.bin\n"


@pytest.mark.parametrize("file", ["Manifest.json", SPECIFICATION, WEIGHTS])
@pytest.mark.parametrize(
    ("pointer", "words"), [(LFS, "is a Git LFS pointer, .*'git lfs pull'"), (ANNEX, "is a git-annex .*'git annex get'")]
)
def test_a_file_that_was_never_fetched(copy: Path, file: str, pointer: bytes, words: str) -> None:
    (copy / file).write_bytes(pointer)
    for read in (load, read_package):
        with pytest.raises(PackageError, match=words) as raised:
            read(copy)
        assert str(copy / file) in str(raised.value)
        assert "damaged" not in str(raised.value)


def test_a_large_file_that_begins_as_a_pointer_does_is_none(copy: Path) -> None:
    (copy / WEIGHTS).write_bytes(LFS + bytes(2000))
    assert "pointer" not in refusal(copy)


def of_type(*kinds: str) -> Model_pb2.Model:
    """A specification of that type; several make a pipeline of them."""
    spec = Model_pb2.Model(specificationVersion=7)
    if len(kinds) == 1:
        getattr(spec, kinds[0]).SetInParent()
    for kind in kinds if len(kinds) > 1 else ():
        getattr(spec.pipeline.models.add(), kind).SetInParent()
    return spec


@pytest.mark.parametrize(
    ("kinds", "words", "never"),
    [
        (
            ("mlProgram", "scaler", "imputer", "nonMaximumSuppression"),
            r"a pipeline of mlProgram \+ scaler \+ imputer \+ nonMaximumSuppression; of pipelines, those of mlProgram "
            "and nonMaximumSuppression are run: export it without scaler and imputer",
            "convert_to",
        ),
        (("nonMaximumSuppression",), "type nonMaximumSuppression, .*; coremltools makes none of such", "convert_to"),
        (("neuralNetwork", "glmClassifier"), "a pipeline of neuralNetwork .*older neural network format", "nms"),
        (("neuralNetworkClassifier",), "type neuralNetworkClassifier, .*convert_to='mlprogram'", "no neural network"),
        (("treeEnsembleRegressor",), "type treeEnsembleRegressor, .*; coremltools makes none of such", "convert_to"),
    ],
)
def test_a_model_of_another_type_gets_the_cure_that_can_help(
    copy: Path, tmp_path: Path, kinds: tuple[str, ...], words: str, never: str
) -> None:
    alone = tmp_path / "model.mlmodel"
    alone.write_bytes(of_type(*kinds).SerializeToString())
    (copy / SPECIFICATION).write_bytes(alone.read_bytes())
    for path, form in ((copy, ": holds "), (alone, ": is an .mlmodel, Core ML's older single file: holds ")):
        with pytest.raises(PackageError, match=words) as raised:
            load(path)
        assert form in str(raised.value)
        assert never not in str(raised.value)


def test_a_classifier_s_pipeline_and_one_within_another(copy: Path) -> None:
    def change(spec: Model_pb2.Model) -> None:
        program = Model_pb2.Model.FromString(spec.SerializeToString())
        outer = spec.pipelineClassifier.pipeline
        outer.models.add().pipeline.models.add().CopyFrom(program)
        outer.models.add().featureVectorizer.SetInParent()

    rewrite(copy, change)
    assert "a pipeline of mlProgram + featureVectorizer; of pipelines, those of mlProgram" in refusal(copy)


def test_an_mlmodel_whose_weights_lie_elsewhere(tmp_path: Path) -> None:
    """Alone, neither an ML program nor a pipeline of such can be run."""
    alone = tmp_path / "model.mlmodel"
    for kinds in (("mlProgram",), ("mlProgram", "nonMaximumSuppression")):
        alone.write_bytes(of_type(*kinds).SerializeToString())
        assert "an ML program without its weights; give the folder of the .mlpackage" in refusal(alone)


def test_a_model_of_no_type(copy: Path) -> None:
    rewrite(copy, lambda spec: spec.ClearField("mlProgram"))
    assert "holds a model of no type, expected an ML program" in refusal(copy)


def test_an_empty_file_in_place_of_a_model(copy: Path, tmp_path: Path) -> None:
    (copy / SPECIFICATION).write_bytes(b"")
    assert refusal(copy).endswith(f"{SPECIFICATION} is empty; the package is damaged, build it again")
    (tmp_path / "model.mlmodel").write_bytes(b"")
    assert "called an .mlmodel, but an empty file; expected the folder of a .mlpackage" in refusal(
        tmp_path / "model.mlmodel"
    )


def test_a_compiled_model_and_a_file_of_it(tmp_path: Path) -> None:
    for name in ("a.mlmodelc", "renamed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "coremldata.bin").write_bytes(b"\0")
        for path in (tmp_path / name, tmp_path / name / "coremldata.bin"):
            assert "a compiled model; it cannot be turned back: give the .mlpackage" in refusal(path)


def test_a_part_of_a_package_and_the_folder_around_it(copy: Path, tmp_path: Path) -> None:
    assert f"is a file of a package, expected the folder of a .mlpackage or .aimodel; give {copy}" in refusal(
        copy / SPECIFICATION
    )
    assert f"is a part of a package; give {copy}" in refusal(copy / "Data")
    around = tmp_path / "unpacked"
    shutil.copytree(copy, around / "one.mlpackage")
    assert "holds one.mlpackage; give that" in refusal(around)
    shutil.copytree(copy, around / "two.mlpackage")
    assert "holds 2 such as one.mlpackage; give one of them" in refusal(around)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.onnx", "is an ONNX model"),
        ("net.pth", "is a file of PyTorch's"),
        ("net.safetensors", "is a file of weights"),
        ("net.mlmodel", "is called an .mlmodel, but no Core ML model specification"),
        ("net.xyz", "is a file, expected the folder of a .mlpackage or .aimodel"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"\xff" * 100)
    assert words in refusal(tmp_path / name)


def test_the_specification_of_an_ml_program_alone(copy: Path, tmp_path: Path) -> None:
    shutil.copy(copy / SPECIFICATION, tmp_path / "model.mlmodel")
    assert "is the specification of an ML program without its weights; give the folder" in refusal(
        tmp_path / "model.mlmodel"
    )


def test_the_command_line_says_it_in_one_line(refused, tmp_path: Path) -> None:
    (tmp_path / "a.mlmodel").write_bytes(of_type("neuralNetwork").SerializeToString())
    assert "is an .mlmodel" in refused("inspect", tmp_path / "a.mlmodel")
