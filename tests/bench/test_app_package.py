"""Packages for apps: labels that coremltools and the portable runtime give, texts, and keys that follow from them."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_weight  # type: ignore[import-untyped]

from coreml_prune_bench.bench.app import App, AppContent, read_labels
from coreml_prune_bench.bench.app_package import save_for_app
from coreml_prune_bench.bench.cells import Cell, lay_out
from coreml_prune_bench.bench.run import Outcome, RunOptions, run
from coreml_prune_bench.bench.suite import choose, load_suite
from coreml_prune_bench.core.errors import BenchError, CellFailedError, PackageError, SuiteError
from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.mlprogram.reader import specification
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.conversion import encode_zeros, to_coreml
from coreml_prune_bench.models.quiet import silenced
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights_licence import licence_of
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.runtimes import portable
from coreml_prune_bench.testing import Script, installed

LABELS = ("ant", "bee", "cat")
CONTENT = AppContent(LABELS, True, {"author": "A. B.", "license": "MIT", "description": "Insects", "version": "1.2"})
APP = """
[app]
labels = "digits.txt"
author = "A. B."
"""


@pytest.fixture
def image(draw: np.random.Generator) -> PIL.Image.Image:
    return PIL.Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.fixture
def labelled(package: Path, tmp_path: Path) -> Path:
    save_for_app(package, tmp_path / "app.mlpackage", CONTENT, {"config": "Float16"})
    return tmp_path / "app.mlpackage"


def test_core_ml_and_the_portable_runtime_classify_with_names(
    package: Path, labelled: Path, image: PIL.Image.Image
) -> None:
    scores = portable.load(package).predict({"image": image})["logits"][0].astype(np.float64)
    expected = np.exp(scores) / np.exp(scores).sum()
    found = portable.load(labelled).predict({"image": image})
    with installed(Script()):
        model = ct.models.MLModel(str(labelled))
        core_ml = model.predict({"image": image})
    for prediction, tolerance in ((found, 1e-6), (core_ml, 1e-3)):  # the stand-in computes in Float16
        assert prediction["classLabel"] == LABELS[int(expected.argmax())]
        assert list(prediction["classLabel_probs"]) == list(LABELS)
        np.testing.assert_allclose(list(prediction["classLabel_probs"].values()), expected, atol=tolerance)
    assert (model.author, model.license, model.short_description, model.version) == ("A. B.", "MIT", "Insects", "1.2")
    assert model.user_defined_metadata["coreml-prune-bench.config"] == "Float16"


def test_probabilities_without_labels(package: Path, tmp_path: Path, image: PIL.Image.Image) -> None:
    save_for_app(package, tmp_path / "m.mlpackage", AppContent((), True, {}), {})
    found = portable.load(tmp_path / "m.mlpackage").predict({"image": image})
    assert list(found) == ["probabilities"]
    assert found["probabilities"].sum() == pytest.approx(1)


def test_the_same_content_is_the_same_bytes(package: Path, labelled: Path, tmp_path: Path) -> None:
    save_for_app(package, tmp_path / "again.mlpackage", CONTENT, {"config": "Float16"})
    assert tree_hash(tmp_path / "again.mlpackage") == tree_hash(labelled)
    other = replace(CONTENT, texts={**CONTENT.texts, "version": "1.3"})
    save_for_app(package, tmp_path / "other.mlpackage", other, {"config": "Float16"})
    assert tree_hash(tmp_path / "other.mlpackage") != tree_hash(labelled)
    assert read_package(labelled).weights == read_package(package).weights


def test_what_names_its_classes_is_not_named_again(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="it names its classes already; leave out the labels"):
        save_for_app(labelled, tmp_path / "twice.mlpackage", CONTENT, {})


def test_another_network_is_noticed(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_an_operation(model: Any) -> None:
        (main,) = model.mlProgram.functions.values()
        (block,) = main.block_specializations.values()
        relu = next(op for op in block.operations if op.type == "relu")
        relu.type = "sigmoid"

    monkeypatch.setattr("coreml_prune_bench.bench.app_package.add_softmax", lose_an_operation)
    with pytest.raises(CellFailedError, match=r"it has (-1 relu|\+1 sigmoid) operations"):
        save_for_app(package, tmp_path / "m.mlpackage", AppContent((), True, {}), {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\nb\n", "has 2 lines, expected 3: a label for each class"),
        ("a\nb\na\n", "'a' stands there 2 times"),
        ("a\n\nb\n", "line 2 is ''"),
        (None, "No such file or directory; expected a file with a label a line"),
    ],
)
def test_labels_that_are_none(text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "l.txt").write_text(text)
    with pytest.raises(SuiteError, match=words):
        read_labels(tmp_path / "l.txt", 3)


def test_weights_have_terms() -> None:
    terms = licence_of("ResNet50_Weights.IMAGENET1K_V1")
    assert terms == licence_of("torchvision's default for resnet50")
    assert terms is not None
    assert "torchvision's pre-trained weights: may have terms of their own" in terms
    assert licence_of("none") is licence_of(64 * "0") is None
    for name in ("mobilenet_v2", "mobilenet_v3_small", "resnet50"):
        weights = get_network(name).pretrained
        assert weights is not None
        url = get_weight(weights).url
        assert licence_of(url.removesuffix(".pth")[-8:] + 56 * "0") == licence_of(weights) == terms


# --- several image sizes


class Pooled(nn.Module):
    """Pools to one pixel, so that its program is one for every size; with a layer to prune."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(16, len(LABELS))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).flatten(1))


def sparse(net: nn.Module, size: int, path: Path) -> Path:
    encode_zeros(to_coreml(net, size), ["features.0", "head"]).save(str(path))
    return path


def test_images_of_each_size_give_what_a_package_for_that_size_does(tmp_path: Path, draw: np.random.Generator) -> None:
    net = Pooled().eval()
    with torch.no_grad():
        net.features[0].weight[:8] = 0
    built = sparse(net, 32, tmp_path / "m.mlpackage")
    out = tmp_path / "app.mlpackage"
    save_for_app(built, out, replace(CONTENT, image_sizes=(48, 64)), {})
    before, after = read_package(built), read_package(out)
    assert before.weights == after.weights
    assert {weight.storage for weight in after.weights if len(weight.shape) > 1} == {"sparse"}
    (image,) = after.inputs
    assert image.shape == (None, None, 3)
    for size in (32, 48, 64):
        pixels = draw.integers(0, 256, (size, size, 3), dtype=np.uint8)
        (expected,) = portable.load(sparse(net, size, tmp_path / f"{size}.mlpackage")).predict({"image": pixels})[
            "logits"
        ]
        found = portable.load(out).predict({"image": pixels})
        expected = np.exp(expected.astype(float)) / np.exp(expected.astype(float)).sum()
        np.testing.assert_allclose(list(found["classLabel_probs"].values()), expected, atol=1e-6)
        with installed(Script()):
            core_ml = ct.models.MLModel(str(out)).predict({"image": PIL.Image.fromarray(pixels)})
        assert core_ml["classLabel"] == found["classLabel"]


def test_sizes_are_declared_as_core_ml_tools_declares_them(tmp_path: Path) -> None:
    net = Pooled().eval()
    to_coreml(net, 32).save(str(tmp_path / "m.mlpackage"))
    save_for_app(tmp_path / "m.mlpackage", tmp_path / "app.mlpackage", AppContent((), False, {}, (48,)), {})
    ours = specification(tmp_path / "app.mlpackage")
    shapes = ct.EnumeratedShapes([(1, 3, 32, 32), (1, 3, 48, 48)], default=(1, 3, 32, 32))
    with silenced():
        traced = torch.jit.trace(net, torch.zeros(1, 3, 32, 32))
        converted = ct.convert(
            traced,
            inputs=[ct.ImageType("image", shape=shapes, color_layout=ct.colorlayout.RGB)],
            outputs=[ct.TensorType("logits")],
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        )
    theirs = converted.get_spec()
    assert ours.description.input[0].type.imageType == theirs.description.input[0].type.imageType
    inputs = [[*model.mlProgram.functions["main"].inputs] for model in (ours, theirs)]
    assert inputs[0] == inputs[1]


def test_a_program_for_one_size_is_refused(package: Path, tmp_path: Path) -> None:
    """The tiny network flattens what it has pooled to 2 x 2."""
    with pytest.raises(PackageError, match="image sizes: it does not take 64 pixels a side"):
        save_for_app(package, tmp_path / "m.mlpackage", replace(CONTENT, image_sizes=(64,)), {})


# --- in a suite


@pytest.fixture
def results(tiny_run: Outcome, tiny_results: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_results, tmp_path / "results"))


@pytest.fixture
def app_suite(tiny_suite: Path, tmp_path: Path) -> Callable[[str], list[Cell]]:
    def cells(app: str) -> list[Cell]:
        head, table, rest = tiny_suite.read_text().partition("[data]")
        (tmp_path / "tiny.toml").write_text(head + app + table + rest)
        return lay_out(choose(load_suite(str(tmp_path / "tiny.toml")), algorithms=["post-training"]), None)

    return cells


def test_keys_follow_from_the_content_and_others_stay(
    app_suite: Callable[[str], list[Cell]], tmp_path: Path, tiny_run: Outcome
) -> None:
    (tmp_path / "digits.txt").write_text("\n".join(f"digit {n}" for n in range(10)))
    measured = {record.key for record in tiny_run.records}
    plain, named = app_suite(""), app_suite(APP)
    assert {cell.key for cell in plain} <= measured
    assert [cell.without_app.key for cell in named] == [cell.key for cell in plain]
    again, other = app_suite(APP), app_suite(APP.replace("A. B.", "C. D."))
    for key in ("key", "build_key", "config_key"):
        assert [getattr(cell, key) for cell in again] == [getattr(cell, key) for cell in named]
        every = [getattr(cell, key) for cell in (*plain, *named, *other)]
        assert len(set(every)) == len(every)
    assert {cell.subject.key for cell in (*plain, *named)} == {plain[0].subject.key}
    (tmp_path / "digits.txt").write_text("\n".join(f"number {n}" for n in range(10)))
    assert not {cell.key for cell in app_suite(APP)} & {cell.key for cell in named}


def test_a_suite_with_labels_measures_what_it_does_without(
    app_suite: Callable[[str], list[Cell]], results: Path, tmp_path: Path, tiny_run: Outcome, run_bench: Any
) -> None:
    (tmp_path / "digits.txt").write_text("\n".join(f"digit {n}" for n in range(10)))
    outcome = run(app_suite(APP), RunOptions(Store(results)))
    before = {(r.pruning.config, r.pruning.algorithm): r for r in tiny_run.records}
    assert outcome.measured == 3
    for record in outcome.records:
        assert record.predictions is not None
        assert record.package is not None
        plain = before[record.pruning.config, record.pruning.algorithm]
        assert record.predictions == plain.predictions
        package = results / str(record.package.path)
        assert tree_hash(package) == record.package.sha256
        model = ct.models.MLModel(str(package), skip_model_load=True)
        told = model.user_defined_metadata
        assert model.author == "A. B."
        assert told["coreml-prune-bench.config"] == record.pruning.config
        assert told["coreml-prune-bench.sparsity"] == f"{record.pruning.sparsity:g}"
        assert told["coreml-prune-bench.scope"] == record.pruning.scope
        assert {"classLabel", "classLabel_probs"} == {output.name for output in model.get_spec().description.output}
    code, output, _ = run_bench("table", "--results", results, "--format", "csv")
    assert code == 0
    assert all(str(record.package and record.package.path) in output for record in outcome.records)


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("[app]\n", "app: it is empty; say one of labels, softmax"),
        ("[app]\nlabel = true\n", "label"),
        ('package_formats = ["aimodel"]\n[app]\nimage_sizes = [64]\n', "app.image_sizes: not of a .aimodel"),
        ('package_formats = ["aimodel"]\n[app]\nsoftmax = true\n', "app.softmax: not of a .aimodel"),
    ],
)
def test_a_suite_that_asks_for_what_cannot_be(app: str, words: str, app_suite: Callable[[str], list[Cell]]) -> None:
    with pytest.raises(SuiteError, match=words):
        app_suite(app)


def test_a_core_ai_asset_is_described(package: Path, tmp_path: Path) -> None:
    pytest.importorskip("coreai")
    from coreml_prune_bench.aimodel.programs import read_program
    from coreml_prune_bench.bench.formats.aimodel import AIMODEL
    from coreml_prune_bench.models.weights import untrained_model
    from tests.tiny_network import TINY

    AIMODEL.save_dense(untrained_model(TINY, 3).eval(), 32, tmp_path / "m.aimodel")
    save_for_app(tmp_path / "m.aimodel", tmp_path / "app.aimodel", replace(CONTENT, softmax=False), {"config": "x"})
    text = (tmp_path / "app.aimodel" / "metadata.json").read_text()
    for word in (
        '"author": "A. B."',
        '"license": "MIT"',
        '"description": "Insects"',
        '"coreml-prune-bench.config": "x"',
    ):
        assert word in text
    assert '"ant",' in text
    assert read_program(tmp_path / "app.aimodel").inputs[0].kind == "image"
    with pytest.raises(PackageError, match=r"softmax: only a \.mlpackage takes that afterwards"):
        save_for_app(tmp_path / "m.aimodel", tmp_path / "b.aimodel", CONTENT, {})


# --- package save


def test_a_row_is_saved_with_what_its_record_says(
    tiny_run: Outcome, results: Path, tmp_path: Path, run_bench: Any
) -> None:
    out = tmp_path / "Digits.mlpackage"
    arguments = ["--labels", "data", "--author", "A. B.", "--license", "CC0", "--results", results]
    code, output, errors = run_bench("package", "save", "Tiny, post-training, 75%", out, *arguments)
    assert (code, output.strip()) == (0, str(out)), errors
    (record,) = (r for r in tiny_run.records if (r.pruning.algorithm, r.pruning.sparsity) == ("post-training", 0.75))
    assert record.predictions is not None
    model = ct.models.MLModel(str(out), skip_model_load=True)
    assert (model.author, model.license) == ("A. B.", "CC0")
    told = model.user_defined_metadata
    assert told["coreml-prune-bench.top1"] == f"{100 * record.predictions.top1:.2f} %"
    assert told["coreml-prune-bench.images"] == str(len(record.predictions.labels))
    code, output, errors = run_bench("accuracy", out, "--data", "digits", "--json")
    assert f'"top1": {100 * record.predictions.top1}' in output, errors


def test_what_cannot_be_saved_is_told(results: Path, tmp_path: Path, refused: Any) -> None:
    out = tmp_path / "m.mlpackage"
    save = lambda row, *more: refused("package", "save", row, more[0] if more else out, *more[1:], "--results", results)  # noqa: E731
    assert '"tiny, dense, Float16"; "tiny, ' in save("mobilenet_v2, SparseGPT")
    line = save("tiny, post-training")
    assert "is 2 rows; say which: " in line
    assert '"tiny, Post-training pruning, Unstructured Sparsity 75%"' in line
    assert "has several trials; say which with --trial: 1 (" in save("tiny, magnitude-pruner")
    assert "--trial 9:" in save("tiny, magnitude-pruner", out, "--trial", 9)
    assert "expected a name that ends in .mlpackage" in save("tiny, dense", tmp_path / "m.mlmodel")
    assert "No such file" in save("tiny, dense", out, "--labels", tmp_path / "none.txt")
    assert "--image-sizes 64,x: expected sides in pixels" in save("tiny, dense", out, "--image-sizes", "64,x")
    assert "it does not take 64 pixels a side" in save("tiny, dense", out, "--image-sizes", "64")
    assert not out.exists()
    out.mkdir()
    assert "is there already; give another name" in save("tiny, dense")
    shutil.rmtree(results / "artifacts")
    out.rmdir()
    assert "`build --suite tiny` makes it again" in save("tiny, dense")


def test_a_record_that_does_not_say_where_its_package_is(tiny_run: Outcome, results: Path) -> None:
    from coreml_prune_bench.bench.saved_package import package_of

    for record in tiny_run.records:
        assert record.package is not None
        older = Record.model_validate(
            record.model_dump() | {"package": record.package.model_copy(update={"path": None})}
        )
        assert package_of(older, results) == results / str(record.package.path)
    given = record.model_copy(update={"network": record.network.model_copy(update={"weights": "as given"})})
    with pytest.raises(BenchError, match="was measured where it lay; no copy of it is kept"):
        package_of(given, results)
    with pytest.raises(BenchError, match="failed: it has no package"):
        package_of(record.model_copy(update={"package": None}), results)


def test_an_empty_app_is_none() -> None:
    assert App(labels=True).content(["a", "b"]) == AppContent(("a", "b"), True, {})
    assert App(labels=True, softmax=False).content(["a"]).softmax is False
    assert App(author="me").content(["a"]) == AppContent((), False, {"author": "me"})
    with pytest.raises(SuiteError, match="the data's classes: 'a' stands there 2 times"):
        App(labels=True).content(["a", "a"])
