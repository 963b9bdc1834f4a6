"""What the portable model takes and refuses, and that a batch never mixes samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import onnx
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from PIL import Image

from coreml_prune_bench.core.errors import PackageError, UnsupportedOperationError
from coreml_prune_bench.runtimes.portable import load, registry
from coreml_prune_bench.runtimes.portable.session import Model
from tests.packages import from_mil, from_torch

# Programs on x [1, 3, 4]; whether they may run a batch at once.
PROGRAMS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "reshape within a sample": (lambda x: mb.reshape(x=x, shape=[1, 12]), True),
    "reshape to unknown leading": (lambda x: mb.reshape(x=x, shape=[-1, 12]), True),
    "reshape of the batch away": (lambda x: mb.reshape(x=x, shape=[3, 4]), False),
    "reshape there and back": (lambda x: mb.reshape(x=mb.reshape(x=x, shape=[3, 4]), shape=[1, 12]), True),
    "transpose within a sample": (lambda x: mb.transpose(x=x, perm=[0, 2, 1]), True),
    "transpose of the batch": (lambda x: mb.transpose(x=x, perm=[1, 0, 2]), False),
    "reduce over the batch": (lambda x: mb.reduce_sum(x=x, axes=[0], keep_dims=True), False),
    "reduce over everything": (lambda x: mb.reduce_sum(x=x, keep_dims=True), False),
    "softmax over the batch": (lambda x: mb.softmax(x=x, axis=-3), False),
    "expand before the batch": (lambda x: mb.expand_dims(x=x, axes=[0]), True),
    "squeeze of the batch": (lambda x: mb.squeeze(x=x, axes=[0]), False),
    "concat along the batch": (lambda x: mb.concat(values=[x, x], axis=0), False),
    "broadcast against the batch": (
        lambda x: mb.add(x=x, y=mb.reshape(x=mb.reduce_sum(x=x, axes=[1]), shape=[1, 1, 4])),
        True,
    ),
    "broadcast of a lower rank": (lambda x: mb.add(x=x, y=mb.reduce_sum(x=x, axes=[1])), False),
    "broadcast of a constant": (lambda x: mb.mul(x=x, y=np.arange(3, dtype=np.float32).reshape(3, 1)), True),
    "broadcast by a constant's rows": (lambda x: mb.mul(x=x, y=np.ones((2, 3, 4), np.float32)), False),
    "attention within a sample": (lambda x: mb.matmul(x=x, y=x, transpose_y=True), True),
    "products between rows": (
        lambda x: mb.matmul(x=mb.reshape(x=x, shape=[1, 12]), y=mb.reshape(x=x, shape=[1, 12]), transpose_y=True),
        False,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_batch_never_mixes_samples(name: str, tmp_path: Path) -> None:
    build, any_batch = PROGRAMS[name]
    model = load(from_mil(tmp_path / "m.mlpackage", build, (1, 3, 4)), threads=1)
    x = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32)
    assert model.any_batch is any_batch
    (together,) = model.predict_batch({"x": x}).values()
    apart = [next(iter(model.predict({"x": sample[None]}).values())) for sample in x]
    assert together.shape[0] == 3
    for i, result in enumerate(apart):
        np.testing.assert_allclose(together[i].ravel(), result.ravel(), rtol=1e-5)


class Planes(torch.nn.Module):
    """Every channel's mean, weighed apart so that their order shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def image_model(path: Path, color: str) -> Model:
    channels = 1 if color == ct.colorlayout.GRAYSCALE else 3
    shape = (1, channels, 4, 6)
    return load(from_torch(path, Planes(), shape, inputs=[ct.ImageType("x", shape=shape, color_layout=color)]))


@pytest.mark.parametrize(
    ("color", "expected"), [(ct.colorlayout.RGB, [10.0, 20.0, 30.0]), (ct.colorlayout.BGR, [30.0, 20.0, 10.0])]
)
def test_image_reaches_the_program_in_its_colour_order(color: str, expected: list[float], tmp_path: Path) -> None:
    model = image_model(tmp_path / "m.mlpackage", color)
    pixels = np.tile(np.array([10, 20, 30], np.uint8), (4, 6, 1))  # [H, W, C]
    for image in (pixels, Image.fromarray(pixels)):
        assert model.predict({"x": image})["y"].tolist() == [expected]


def test_grayscale_image_has_one_channel(tmp_path: Path) -> None:
    model = image_model(tmp_path / "m.mlpackage", ct.colorlayout.GRAYSCALE)
    assert model.predict({"x": Image.new("L", (6, 4), 7)})["y"].tolist() == [[7.0]]
    assert model.predict_batch({"x": np.full((2, 4, 6, 1), 9, np.uint8)})["y"].tolist() == [[9.0], [9.0]]


@pytest.fixture(scope="module")
def rgb(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return image_model(tmp_path_factory.mktemp("rgb") / "m.mlpackage", ct.colorlayout.RGB)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": Image.new("RGB", (6, 4))}, r"expected inputs \['x'\], got \['image'\]"),
        ({}, r"expected inputs \['x'\], got \[\]"),
        ({"x": Image.new("L", (6, 4))}, "mode RGB .* got mode L"),
        ({"x": "cat.jpg"}, "a PIL image of mode RGB .* got str"),
        ({"x": Image.new("RGB", (4, 6))}, r"shape \[4, 6, 3\], got shape \[6, 4, 3\]"),
        ({"x": np.zeros((4, 6, 3), np.float32)}, "uint8 .* got float32"),
    ],
)
def test_unfit_image_is_refused_with_what_fits(rgb: Model, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        rgb.predict(inputs)


def test_unfit_array_is_refused_with_what_fits(tmp_path: Path) -> None:
    model = load(from_mil(tmp_path / "m.mlpackage", lambda x, y: mb.add(x=x, y=y), (1, 4), (1, 4)))
    x = np.zeros((1, 4), np.float32)
    with pytest.raises(PackageError, match=r"shape \[1, 4\], got shape \[4\]"):
        model.predict({"x": x, "y": x[0]})
    with pytest.raises(PackageError, match=r"float32 of shape .*, got bool"):
        model.predict({"x": x, "y": x > 0})
    with pytest.raises(PackageError, match="same number of samples"):
        model.predict_batch({"x": x, "y": np.repeat(x, 2, axis=0)})
    with pytest.raises(PackageError, match="1 or more"):
        model.predict_batch({"x": x[:0], "y": x[:0]})


def test_grayscale_bytes_stay_bytes(tmp_path: Path) -> None:
    """An image that the program takes as uint8 and returns as an image, turned."""
    gray = ct.colorlayout.GRAYSCALE
    image = ct.ImageType("x", shape=(1, 1, 2, 3), color_layout=gray, grayscale_use_uint8=True)
    turned = from_torch(
        tmp_path / "m.mlpackage",
        Transposed(),
        (1, 1, 2, 3),
        inputs=[image],
        outputs=[ct.ImageType("y", color_layout=gray)],
    )
    pixels = np.array([[0, 1, 254], [255, 128, 127]], np.uint8)
    (result,) = load(turned, threads=1).predict({"x": Image.fromarray(pixels)}).values()
    np.testing.assert_array_equal(np.asarray(result), pixels.T)


class Transposed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(-2, -1)


class Assigned(torch.nn.Module):
    """Writes to the fourth row, which an input of the smallest size that coremltools declares does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x[3, :2] = torch.tensor([5.0, 6.0])
        return x.reshape(x.shape[1], 2, -1)


def flexible(path: Path, module: torch.nn.Module) -> Path:
    size = ct.RangeDim(upper_bound=8)
    return from_torch(path, module, (4, 6), inputs=[ct.TensorType("x", shape=(size, size))])


def test_a_default_shape_that_does_not_fit_the_program(tmp_path: Path) -> None:
    """coremltools declares [1, 1]. Shapes that fit run, others are refused when they come."""
    model = load(flexible(tmp_path / "m.mlpackage", Assigned()), threads=1)
    assert model.inputs[0].default_shape == (1, 1)
    for shape in ((4, 6), (8, 3), (4, 6)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        expected = Assigned()(torch.tensor(x)).numpy()
        np.testing.assert_array_equal(model.predict({"x": x})["y"], expected)
    with pytest.raises(PackageError, match=r"m\.mlpackage: .*slice_by_index"):
        model.predict({"x": np.ones((1, 1), np.float32)})


def test_a_default_shape_that_does_not_fit_hides_no_unknown_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = flexible(tmp_path / "m.mlpackage", Assigned())
    monkeypatch.delitem(registry._OPERATIONS, "reshape")
    with pytest.raises(UnsupportedOperationError, match="operation 'reshape'"):
        load(package, cache=False)


def test_samples_with_results_of_different_shapes_are_no_batch(tmp_path: Path) -> None:
    def positive(x: Any) -> Any:
        return mb.non_zero(x=mb.cast(x=mb.greater(x=x, y=0.0), dtype="fp32"))

    model = load(from_mil(tmp_path / "m.mlpackage", positive, (1, 3)), threads=1)
    (rows,) = model.predict_batch({"x": np.array([[1, 0, 2], [0, 3, 4]], np.float32)}).values()
    assert rows.tolist() == [[[0, 0], [0, 2]], [[0, 1], [0, 2]]]
    with pytest.raises(PackageError, match=r"is \[1, 2\] and \[2, 2\] for different samples; use predict"):
        model.predict_batch({"x": np.array([[1, 0, 2], [0, 3, 0]], np.float32)})


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda x: (x, x), [1, -2]),  # coremltools lists a value as often as the network returns it
        (lambda x: (torch.relu(x),) * 3, [1, 0]),
        (lambda x: (x * 2, *(torch.full((2,), 3.0),) * 2), [3, 3]),
        (lambda x: (y := torch.relu(x), y.view(1, 2), y), [1, 0]),
    ],
    ids=["an input", "a result", "a constant", "a view"],
)
def test_one_value_returned_several_times(
    forward: Callable[[torch.Tensor], Any], expected: list[float], tmp_path: Path
) -> None:
    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return forward(x)

    x = np.array([[1, -2]], np.float32)
    model = load(from_torch(tmp_path / "m.mlpackage", Network(), (1, 2), outputs=None), threads=1)
    assert len(set(model.output_names)) == len(model.output_names) == len(model.outputs)
    *_, last = model.predict({"x": x}).values()
    assert last.reshape(-1).tolist() == expected


def test_one_value_under_several_names(tmp_path: Path) -> None:
    """An input, a constant and a computed value, each under names of its own and of its aliases."""

    def build(x: Any) -> list[Any]:
        constant, y = mb.const(val=np.array([3, 4], np.float32)), mb.relu(x=x)
        return [
            mb.identity(x=value, name=f"value{n}{copy}") for n, value in enumerate((x, constant, y)) for copy in "ab"
        ] + [y]

    for precision in ("float32", "float16"):
        model = load(from_mil(tmp_path / f"{precision}.mlpackage", build, (1, 2)), precision=precision, threads=1)
        results = model.predict({"x": np.array([[1, -2]], np.float32)})
        assert len(results) == 7
        assert [value.ravel().tolist() for value in results.values()] == [[1, -2]] * 2 + [[3, 4]] * 2 + [[1, 0]] * 3


@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64])
def test_float16_input_is_rounded_once(given: type, tmp_path: Path) -> None:
    path = from_mil(tmp_path / "m.mlpackage", lambda x: mb.mul(x=x, y=np.float16(1)), (1, 6), dtype=types.fp16)
    model = load(path, threads=1)
    assert model.inputs[0].dtype == "float16"
    # Halves between two neighbours, beyond the largest number, among the smallest ones; one that Float32 rounds first.
    numbers = [1 + 2**-11, 1 + 3 * 2**-11, 1e5, 1e-7, -0.1, 1 + 2**-11 + 2**-40]
    with np.errstate(over="ignore"):
        x = np.array([numbers]).astype(given)
        expected = x.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(next(iter(model.predict({"x": x}).values())), expected)


def hard_swish(x: Any, *, threshold: float = -3.0, alpha: float = 1 / 6) -> Any:
    kept = mb.thresholded_relu(x=x, alpha=threshold)
    return mb.mul(x=mb.sigmoid_hard(x=kept, alpha=alpha, beta=0.5), y=kept, name="y")


def hard_swish_and_threshold(x: Any) -> tuple[Any, Any]:
    kept = mb.thresholded_relu(x=x, alpha=-3.0)
    return kept, mb.mul(x=mb.sigmoid_hard(x=kept, alpha=1 / 6, beta=0.5), y=kept)


@pytest.mark.parametrize(
    ("build", "joined"),
    [
        (hard_swish, True),
        (lambda x: hard_swish(x, threshold=-2.0), True),  # of what the threshold leaves
        (lambda x: hard_swish(x, alpha=0.2), False),
        (lambda x: (hard_swish(x), mb.thresholded_relu(x=x, alpha=-3.0)), True),
        (hard_swish_and_threshold, True),
    ],
)
def test_hard_swish_becomes_one_node_where_it_is_one(build: Callable[[Any], Any], joined: bool, tmp_path: Path) -> None:
    model = load(from_mil(tmp_path / "m.mlpackage", build, (1, 9)), threads=1)
    model.to_onnx(tmp_path / "m.onnx")
    nodes = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert ("HardSwish" in nodes) is joined
    x = np.array([[-4, -3.0001, -3, -2.999, -2, -1e-3, 0, 2.5, 3.5]], np.float32)
    if build is hard_swish:
        expected = torch.nn.functional.hardswish(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(model.predict({"x": x})["y"], expected, rtol=1e-6, atol=1e-6)


def test_unknown_operation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry._OPERATIONS, "cumsum")
    path = from_mil(tmp_path / "m.mlpackage", lambda x: mb.cumsum(x=x, axis=1, name="running"), (1, 4))
    with pytest.raises(UnsupportedOperationError, match=r"m\.mlpackage: operation 'cumsum' \(running\)"):
        load(path)
