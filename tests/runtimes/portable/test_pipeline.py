"""Pipelines: ML programs one after the other, and the boxes that non-maximum suppression leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
import torchvision
from coremltools.converters.mil import Builder as mb
from coremltools.proto import FeatureTypes_pb2, Model_pb2
from PIL import Image

from coreml_prune_bench.accuracy.predict import predict
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil

BOXES, CLASSES = 60, 3
FLOAT32 = FeatureTypes_pb2.ArrayFeatureType.FLOAT32


def array(features: Any, name: str, *shape: int) -> Any:
    feature = features.add(name=name)
    feature.type.multiArrayType.dataType = FLOAT32
    feature.type.multiArrayType.shape.extend(shape)
    return feature


def suppression(*, per_class: bool, rows: tuple[int, int] | None = None, **thresholds: float) -> Model_pb2.Model:
    """A non-maximum suppression as ultralytics writes it, of `c` and `b`. rows: at least and at most so many boxes."""
    spec = Model_pb2.Model(specificationVersion=5)
    for features, names in ((spec.description.input, "cb"), (spec.description.output, ("confidence", "coordinates"))):
        for name, size in zip(names, (CLASSES, 4), strict=True):
            array(features, name, *((BOXES, size) if name in "cb" else ()))
    if rows:
        for low, high in (rows, (CLASSES, CLASSES)):
            sizes = spec.description.output[0].type.multiArrayType.shapeRange.sizeRanges
            sizes.add(lowerBound=low, upperBound=high)
    model = spec.nonMaximumSuppression
    model.pickTop.perClass = per_class
    model.iouThreshold, model.confidenceThreshold = thresholds.get("iou", 0.45), thresholds.get("confidence", 0.25)
    model.confidenceInputFeatureName, model.coordinatesInputFeatureName = "c", "b"
    model.confidenceOutputFeatureName, model.coordinatesOutputFeatureName = "confidence", "coordinates"
    model.iouThresholdInputFeatureName, model.confidenceThresholdInputFeatureName = "iou", "least"
    return spec


def detector(path: Path, draw: np.random.Generator, suppress: Model_pb2.Model, *, override: bool = False) -> Path:
    """Boxes and confidences that the input moves: a constant that is added to it, then suppression."""
    centres, sizes = draw.uniform(0, 1, (BOXES, 2)), draw.uniform(0.1, 0.5, (BOXES, 2))
    boxes = np.concatenate([centres, sizes], axis=1).astype(np.float32)
    confidences = draw.dirichlet([0.3] * CLASSES, BOXES).astype(np.float32)
    confidences[5] = confidences[4]  # of equal ones, the first

    def build(x: Any) -> Any:
        return mb.add(x=x, y=boxes, name="b"), mb.mul(x=confidences, y=mb.exp(x=mb.reduce_sum(x=x)), name="c")

    first = ct.models.MLModel(str(from_mil(path.parent / "first.mlpackage", build, (1, 1))), skip_model_load=True)
    made = ct.utils.make_pipeline(first, ct.models.MLModel(suppress, skip_model_load=True))
    spec = made.get_spec()
    for name in ("iou", "least") if override else ():
        spec.description.input.add(name=name).type.doubleType.SetInParent()
    ct.models.MLModel(spec, weights_dir=made.weights_dir, skip_model_load=True).save(str(path))
    return path


def expected(
    confidences: np.ndarray, boxes: np.ndarray, *, iou: float, least: float, per_class: bool
) -> tuple[np.ndarray, np.ndarray]:
    """By torchvision: the rows that are left, the best first."""
    best, classes = torch.tensor(confidences).max(dim=1)
    enough = torch.nonzero(best >= least).flatten()
    corners = torchvision.ops.box_convert(torch.tensor(boxes), "cxcywh", "xyxy")
    own = classes if per_class else torch.zeros_like(classes)
    kept = enough[torchvision.ops.batched_nms(corners[enough], best[enough], own[enough], iou)]
    return confidences[kept], boxes[kept]


@pytest.mark.parametrize("per_class", [True, False])
def test_suppression_leaves_what_torchvision_leaves(per_class: bool, draw: np.random.Generator, tmp_path: Path) -> None:
    """For many inputs, with the thresholds of the package and with others: in all, hundreds of boxes stay and go."""
    suppress = suppression(per_class=per_class)
    package = detector(tmp_path / "m.mlpackage", draw, suppress, override=True)
    model = load(package, threads=1)
    assert [(f.name, f.default) for f in model.inputs] == [("x", None), ("iou", 0.45), ("least", 0.25)]
    assert model.output_names == ("confidence", "coordinates")
    whole = load(package, threads=1)
    everything = whole.predict({"x": np.zeros((1, 1), np.float32), "iou": 1.0, "least": 0.0})
    assert everything["coordinates"].shape == (BOXES, 4)
    counts = set()
    for iou, least in ((None, None), (0.1, 0.0), (0.0, 0.5), (0.7, 0.6), (0.45, 0.0), (1.0, 0.9), (0.3, 2.0)):
        given = {} if iou is None else {"iou": iou, "least": least}
        results = model.predict({"x": np.zeros((1, 1), np.float32), **given})
        rows = expected(
            everything["confidence"],
            everything["coordinates"],
            iou=0.45 if iou is None else iou,
            least=0.25 if least is None else least,
            per_class=per_class,
        )
        for name, want in zip(("confidence", "coordinates"), rows, strict=True):
            np.testing.assert_array_equal(results[name], want, err_msg=f"{iou} {least}")
        counts.add(len(rows[0]))
    assert 0 in counts
    assert len(counts) > 4


@pytest.mark.parametrize(("rows", "count"), [((0, 3), 3), ((100, 100), 100), ((40, 200), 40), ((0, -1), None)])
def test_how_many_boxes_are_returned(
    rows: tuple[int, int], count: int | None, draw: np.random.Generator, tmp_path: Path
) -> None:
    """At most so many, the best; at least so many, the last ones zeros."""
    suppress = suppression(per_class=False, rows=rows, confidence=0.0, iou=0.1)
    results = load(detector(tmp_path / "m.mlpackage", draw, suppress), threads=1).predict(
        {"x": np.zeros((1, 1), np.float32)}
    )
    confidence, coordinates = results["confidence"], results["coordinates"]
    left = np.count_nonzero(confidence.any(axis=1))
    assert len(confidence) == len(coordinates) == (left if count is None else count)
    assert 3 <= left < 40 if count != 3 else left == 3
    assert not confidence[left:].any()
    assert not coordinates[left:].any()
    best = confidence[:left].max(axis=1)
    assert (np.diff(best) <= 0).all()


class Head(torch.nn.Module):
    """Names that both models of a pipeline have."""

    def __init__(self, inputs: int, outputs: int, half: bool = False) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(inputs, outputs)
        self.half_precision = half

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x))


def converted(path: Path, module: torch.nn.Module, given: Any, made: Any, **options: Any) -> Any:
    shape = (1, *given.shape.shape[1:]) if isinstance(given, ct.ImageType) else given.shape.shape
    traced = torch.jit.trace(module.eval(), torch.rand(*shape))
    kept = {"minimum_deployment_target": ct.target.iOS17, "compute_precision": ct.precision.FLOAT32} | options
    model = ct.convert(traced, inputs=[given], outputs=[made], skip_model_load=True, **kept)
    model.save(str(path))
    return ct.models.MLModel(str(path), skip_model_load=True)


def piped(path: Path, *models: Any) -> Path:
    ct.utils.make_pipeline(*models).save(str(path))
    return path


@pytest.fixture
def heads(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    """Two networks with the same names in them, of different operation sets, by way of Float16 features."""
    torch.manual_seed(0)
    first, second = Head(8, 6), Head(6, 4)
    half = np.float16
    models = (
        converted(tmp_path / "a.mlpackage", first, ct.TensorType("x", (1, 8)), ct.TensorType("middle", dtype=half)),
        converted(
            tmp_path / "b.mlpackage",
            second,
            ct.TensorType("middle", (1, 6), dtype=half),
            ct.TensorType("y"),
            minimum_deployment_target=ct.target.iOS16,
        ),
    )

    class Both(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return second(first(x).half().float())

    return piped(tmp_path / "m.mlpackage", *models), Both()


def test_networks_in_turn(heads: tuple[Path, torch.nn.Module], draw: np.random.Generator) -> None:
    """Values are those of the networks in turn, in a batch too; weights are listed and the model can be exported."""
    package, network = heads
    model = load(package, threads=1)
    x = draw.normal(size=(3, 8)).astype(np.float32)
    with torch.no_grad():
        want = network(torch.tensor(x)).numpy()
    assert model.any_batch
    np.testing.assert_allclose(model.predict_batch({"x": x})["y"], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict({"x": x[:1]})["y"], want[:1], rtol=1e-5, atol=1e-6)
    summary = read_package(package)
    assert [feature.name for feature in (*summary.inputs, *summary.outputs)] == ["x", "y"]
    assert sorted(weight.shape for weight in summary.weights if len(weight.shape) == 2) == [(4, 6), (6, 8)]
    model.to_onnx(package.parent / "m.onnx")
    with pytest.raises(PackageError, match="no function 'other', expected one of main"):
        load(package, function="other")


def test_missing_weights_are_told_as_those_of_a_pipeline(heads: tuple[Path, torch.nn.Module]) -> None:
    package, _ = heads
    for weights in package.glob("Data/*/weights/*"):
        weights.unlink()
    for reads in (read_package, load):
        with pytest.raises(PackageError, match=r"weight file weights/\S+ of its pipeline of 2 mlProgram is missing"):
            reads(package)


def test_one_prediction_from_files(draw: np.random.Generator, tmp_path: Path) -> None:
    package = detector(tmp_path / "m.mlpackage", draw, suppression(per_class=True), override=True)
    np.save(tmp_path / "x.npy", np.zeros((1, 1), np.float32))
    given = [f"x={tmp_path / 'x.npy'}"]
    every = predict(package, [*given, "iou=1", "least=0"])["outputs"]["coordinates"]
    assert every["shape"] == [BOXES, 4]
    assert predict(package, given)["outputs"]["coordinates"]["shape"][0] < BOXES


def changed(path: Path, change: Callable[[Model_pb2.Model], None]) -> Path:
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    spec = Model_pb2.Model.FromString(file.read_bytes())
    change(spec)
    file.write_bytes(spec.SerializeToString())
    return path


class Brighter(torch.nn.Module):
    """Beyond what a byte holds, and between two bytes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.tensor([1.5, 1.0, -1.0]).reshape(1, 3, 1, 1) + 0.25


class Halved(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


def test_an_image_is_handed_on_as_pixels(draw: np.random.Generator, tmp_path: Path) -> None:
    """Rounded and cut off to bytes, and in the order of colours that the next model takes."""
    rgb, bgr = ct.colorlayout.RGB, ct.colorlayout.BGR
    image = {"shape": (1, 3, 4, 5)}
    first = converted(
        tmp_path / "a.mlpackage",
        Brighter(),
        ct.ImageType("x", color_layout=rgb, **image),
        ct.ImageType("middle", color_layout=rgb),
    )
    second = converted(
        tmp_path / "b.mlpackage", Halved(), ct.ImageType("middle", color_layout=bgr, **image), ct.TensorType("y")
    )
    x = draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    package = piped(tmp_path / "m.mlpackage", first, second)

    def declare(spec: Model_pb2.Model) -> None:  # coremltools gives it the type of the input that takes it
        made = spec.pipeline.models[0].description.output[0].type.imageType
        made.colorSpace = FeatureTypes_pb2.ImageFeatureType.RGB

    y = load(changed(package, declare), threads=1).predict({"x": Image.fromarray(x)})["y"]
    pixels = np.clip(np.rint(x * np.array([1.5, 1, -1]) + 0.25), 0, 255)
    np.testing.assert_array_equal(y[0], np.moveaxis(pixels[..., ::-1], -1, 0) / 2)


def test_a_classifier_at_the_end(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = converted(tmp_path / "a.mlpackage", Head(8, 6), ct.TensorType("x", (1, 8)), ct.TensorType("middle"))
    traced = torch.jit.trace(torch.nn.Softmax(dim=1), torch.rand(1, 6))
    last = ct.convert(
        traced,
        inputs=[ct.TensorType("middle", (1, 6))],
        classifier_config=ct.ClassifierConfig(list("abcdef")),
        minimum_deployment_target=ct.target.iOS17,
        skip_model_load=True,
    )
    last.save(str(tmp_path / "b.mlpackage"))
    last = ct.models.MLModel(str(tmp_path / "b.mlpackage"), skip_model_load=True)
    model = load(piped(tmp_path / "m.mlpackage", first, last), threads=1)
    x = np.arange(8, dtype=np.float32)[None]
    result = model.predict({"x": x})
    middle = load(tmp_path / "a.mlpackage", threads=1).predict({"x": x})["middle"]
    alone = load(tmp_path / "b.mlpackage", threads=1).predict({"middle": middle})
    assert result == alone
    assert model.classes == tuple("abcdef")


def test_models_that_do_not_fit_each_other(heads: tuple[Path, torch.nn.Module]) -> None:
    package, _ = heads
    original = (package / "Data/com.apple.CoreML/model.mlmodel").read_bytes()

    def swap(spec: Model_pb2.Model) -> None:
        models = [Model_pb2.Model.FromString(m.SerializeToString()) for m in spec.pipeline.models]
        del spec.pipeline.models[:]
        spec.pipeline.models.extend(reversed(models))

    def second(change: Callable[[Any], None]) -> Callable[[Model_pb2.Model], None]:
        return lambda spec: change(spec.pipeline.models[1].description)

    def as_image(description: Any) -> None:
        image = description.input[0].type.imageType
        image.height, image.width, image.colorSpace = 1, 6, FeatureTypes_pb2.ImageFeatureType.RGB

    def wider(description: Any) -> None:
        description.input[0].type.multiArrayType.shape[1] = 7

    def integers(description: Any) -> None:
        description.input[0].type.multiArrayType.dataType = FeatureTypes_pb2.ArrayFeatureType.INT32

    cases: dict[str, Callable[[Model_pb2.Model], None]] = {
        r"model 1 of its pipeline takes 'middle', which is not given": swap,
        r"model 2 .* input 'middle' is declared as image, and what is given as array": second(as_image),
        r"model 2 .* input 'middle' has shape \[1, 7\], and what is given shape \[1, 6\]": second(wider),
        r"model 2 .* input 'middle' is declared as int32, and what is given as float16": second(integers),
        r"its output 'z' is given by none of its models": lambda spec: setattr(spec.description.output[0], "name", "z"),
        r"mlProgram \+ glmClassifier; .* export it without glmClassifier": lambda spec: spec.pipeline.models[
            1
        ].glmClassifier.SetInParent(),
    }
    for words, change in cases.items():
        (package / "Data/com.apple.CoreML/model.mlmodel").write_bytes(original)
        with pytest.raises(PackageError, match=words):
            load(changed(package, change), threads=1)


def test_pipelines_within_pipelines(heads: tuple[Path, torch.nn.Module]) -> None:
    package, _ = heads
    x = np.ones((1, 8), np.float32)
    flat = load(package, threads=1).predict({"x": x})["y"]

    def nest(spec: Model_pb2.Model) -> None:
        inner = Model_pb2.Model.FromString(spec.SerializeToString())
        del spec.pipeline.models[:]
        spec.pipeline.models.add().CopyFrom(inner)

    np.testing.assert_array_equal(load(changed(package, nest), threads=1).predict({"x": x})["y"], flat)


def test_damaged_suppressions(draw: np.random.Generator, tmp_path: Path) -> None:
    package = detector(tmp_path / "m.mlpackage", draw, suppression(per_class=True))
    original = (package / "Data/com.apple.CoreML/model.mlmodel").read_bytes()

    def model(spec: Model_pb2.Model) -> Any:
        return spec.pipeline.models[1].nonMaximumSuppression

    def rows(spec: Model_pb2.Model, *sizes: int) -> None:
        for output, size in zip(spec.pipeline.models[1].description.output, sizes, strict=True):
            output.type.multiArrayType.shape.extend((size, 4))

    cases: dict[str, Callable[[Model_pb2.Model], None]] = {
        "iou_threshold of its non-maximum suppression is nan": lambda s: setattr(model(s), "iouThreshold", np.nan),
        "iou_threshold of its non-maximum suppression is 2,": lambda s: setattr(model(s), "iouThreshold", 2.0),
        "does not declare e, b": lambda s: setattr(model(s), "confidenceInputFeatureName", "e"),
        "called 'a/b', which is no name": lambda s: setattr(model(s), "coordinatesOutputFeatureName", "a/b"),
        "returns 7 boxes at least and 5 at most": lambda s: rows(s, 5, 7),
    }
    for words, change in cases.items():
        (package / "Data/com.apple.CoreML/model.mlmodel").write_bytes(original)
        with pytest.raises(PackageError, match=words):
            load(changed(package, change), threads=1)
