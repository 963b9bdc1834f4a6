"""Packages that others made with plain coremltools: each is measured as torch's network, which it was made of, says.

And those whose images were prepared wrongly, which a warning tells.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor, nn
from torchvision import transforms  # type: ignore[import-untyped]

from coreml_prune_bench.accuracy.evaluate import evaluate
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.data import open_data
from coreml_prune_bench.data.split import Split
from coreml_prune_bench.mlprogram.normalization import normalization_of
from coreml_prune_bench.mlprogram.reader import read
from coreml_prune_bench.models.preprocessing import Preprocessing
from coreml_prune_bench.models.quiet import silenced
from coreml_prune_bench.runtimes.protocol import loader
from coreml_prune_bench.testing import Script, installed

SIZE = 32
NAMES = ("apple", "brick", "cloud", "dusk", "earth", "flame")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = {"mean": MEAN, "std": STD}


class Net(nn.Module):
    """Six colours told apart by a small network with random weights, whose head is fitted to them."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 24, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(24, len(NAMES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Noisy images of six colours, 60 in all, of another size and shape than networks take them."""
    folder, draw = tmp_path_factory.mktemp("colours"), np.random.default_rng(7)
    for label, name in enumerate(NAMES):
        (folder / "val" / name).mkdir(parents=True)
        colour = np.random.default_rng(label).integers(60, 200, 3)
        for number in range(10):
            pixels = np.clip(colour + draw.normal(0, 30, (40, 48, 3)), 0, 255).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / "val" / name / f"{number}.png")
    return f"imagefolder:{folder}"


@pytest.fixture(scope="module")
def split(spec: str) -> Split:
    return open_data(spec).val


def prepared(split: Split, *steps: Any) -> Tensor:
    """The images as torchvision's transforms make them."""
    transform = transforms.Compose([transforms.Resize(SIZE), transforms.CenterCrop(SIZE), *steps])
    return torch.stack([transform(split.image(place)) for place in range(len(split))])


def pixels(split: Split, *steps: Any) -> Tensor:
    """From 0 to 255, float32 [N, C, H, W]."""
    return prepared(split, *steps, transforms.PILToTensor()).float()


def fitted(images: Tensor, labels: Tensor) -> Net:
    """A network that gets most of the images right, prepared as these are, and not all."""
    torch.manual_seed(3)
    net = Net(images.shape[1])
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net.eval()


class Around(nn.Module):
    """A network with something before and behind it, as people convert it."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        behind: Callable[[Tensor], Any] = lambda y: y,
    ) -> None:
        super().__init__()
        self.net, self.before, self.behind = net, before, behind

    def forward(self, x: Tensor) -> Any:
        return self.behind(self.net(self.before(x)))


def save(
    path: Path, module: nn.Module, inputs: Any, shape: tuple[int, ...], change: Any = None, **options: Any
) -> Path:
    defaults = {"minimum_deployment_target": ct.target.iOS17, "skip_model_load": True}
    with silenced():
        traced = torch.jit.trace(module.eval(), torch.rand(shape), check_trace=False)
        model = ct.convert(traced, inputs=[inputs], **(defaults | options))
        model = change(model) if change else model
        model.save(str(path))
    return path


NCHW, NHWC = (1, 3, SIZE, SIZE), (1, SIZE, SIZE, 3)
NORMALIZE = transforms.Normalize(MEAN, STD)
FLOAT32 = {"compute_precision": ct.precision.FLOAT32}
KINDS = [
    "array NCHW", "array NHWC", "Float16 array", "grayscale", "scale and bias", "classifier with softmax",
    "two outputs", "flexible batch", "Float32 weights", "palettized", "another label order",
    "NumPy-style mean and std", "BGR array", "normalizes pixels itself", "grayscale array",
]  # fmt: skip


def made(kind: str, path: Path, split: Split) -> tuple[Path, nn.Module, Tensor, dict[str, Any], str | None]:
    """The package; the network with the images as torch has them; what `accuracy` is told; the output."""
    labels = torch.from_numpy(split.labels)
    raw = pixels(split)
    normal = NORMALIZE(raw / 255)
    array = ct.TensorType("x", shape=NCHW)
    asked: dict[str, Any] = dict(IMAGENET)
    match kind:
        case "array NCHW" | "Float32 weights":
            net = fitted(normal, labels)
            return save(path, net, array, NCHW, **FLOAT32), net, normal, asked, None
        case "array NHWC":
            net = fitted(normal, labels)
            around = Around(net, before=lambda x: x.permute(0, 3, 1, 2))
            return save(path, around, ct.TensorType("x", shape=NHWC), NHWC, **FLOAT32), net, normal, asked, None
        case "Float16 array":
            net = fitted(normal, labels)
            return save(path, net, ct.TensorType("x", shape=NCHW, dtype=np.float16), NCHW), net, normal, asked, None
        case "grayscale" | "grayscale array":
            gray = pixels(split, transforms.Grayscale()) / 255
            net, shape = fitted(gray, labels), (1, 1, SIZE, SIZE)
            if kind == "grayscale array":
                return save(path, net, ct.TensorType("x", shape=shape), shape), net, gray, {"scale": 1 / 255}, None
            image = ct.ImageType("x", shape=shape, color_layout=ct.colorlayout.GRAYSCALE, scale=1 / 255)
            return save(path, net, image, shape, **FLOAT32), net, gray, {}, None
        case "scale and bias":
            images = raw / 127.5 - 1
            net = fitted(images, labels)
            image = ct.ImageType("x", shape=NCHW, scale=1 / 127.5, bias=[-1, -1, -1])
            return save(path, net, image, NCHW, **FLOAT32), net, images, {}, None
        case "classifier with softmax" | "another label order":
            net = fitted(normal, labels)
            order = [3, 0, 5, 1, 4, 2] if kind == "another label order" else list(range(6))
            around = Around(net, behind=lambda y: torch.softmax(y[:, order], 1))
            names = ct.ClassifierConfig([NAMES[place] for place in order])
            return save(path, around, array, NCHW, classifier_config=names, **FLOAT32), net, normal, asked, None
        case "two outputs":
            net = fitted(normal, labels)
            around = Around(net, behind=lambda y: (y.sum(1), y[:, :, None, None]))
            outputs = {"outputs": [ct.TensorType("total"), ct.TensorType("scores")]}
            return save(path, around, array, NCHW, **outputs, **FLOAT32), net, normal, asked, "scores"
        case "flexible batch":
            net = fitted(normal, labels)
            flexible = ct.TensorType("x", shape=(ct.RangeDim(1, 16, 1), *NCHW[1:]))
            return save(path, net, flexible, NCHW, **FLOAT32), net, normal, asked, None
        case "palettized":
            net = fitted(normal, labels)
            config = cto.OptimizationConfig(cto.OpPalettizerConfig(nbits=8, mode="kmeans", weight_threshold=0))
            change = lambda model: cto.palettize_weights(model, config)  # noqa: E731
            return save(path, net, array, NCHW, change, **FLOAT32), net, normal, asked, None
        case "NumPy-style mean and std":
            mean, std = (104.0, 117.0, 123.0), (57.0, 58.0, 59.0)
            images = (raw - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
            net = fitted(images, labels)
            return save(path, net, array, NCHW, **FLOAT32), net, images, {"scale": 1, "mean": mean, "std": std}, None
        case "BGR array":
            images = raw.flip(1) - torch.tensor((103.939, 116.779, 123.68)).view(3, 1, 1)
            net = fitted(images / 50, labels)
            around = Around(net, before=lambda x: x / 50)
            asked = {"scale": 1, "mean": (103.939, 116.779, 123.68), "layout": "NCHW-BGR"}
            return save(path, around, array, NCHW, **FLOAT32), net, images / 50, asked, None
        case "normalizes pixels itself":
            net = fitted(normal, labels)
            around = Around(net, before=lambda x: NORMALIZE(x / 255))
            return save(path, around, array, NCHW, **FLOAT32), net, normal, {}, None
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_top1_is_what_torch_gives(
    kind: str, split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str], draw: np.random.Generator
) -> None:
    package, net, images, asked, output = made(kind, tmp_path / "m.mlpackage", split)
    with torch.no_grad():
        best = net(images).argmax(1).numpy()
    ((found,), _) = evaluate([package], split, Preprocessing(**asked), output=output)
    assert [top[0] for top in found.top5] == best.tolist()
    assert found.top1 == (best == split.labels).mean()
    assert found.top1 > 0.5
    told = capsys.readouterr().err
    assert "warning" not in told
    assert ("which its program normalizes" in told) == (kind == "normalizes pixels itself")


@pytest.mark.parametrize("kind", ["grayscale", "flexible batch", "array NHWC", "another label order"])
def test_core_ml_is_fed_the_same(kind: str, split: Split, tmp_path: Path) -> None:
    package, _, _, asked, _ = made(kind, tmp_path / "m.mlpackage", split)
    ((portable,), _) = evaluate([package], split, Preprocessing(**asked))
    with installed(Script()):
        ((core_ml,), _) = evaluate([package], split, Preprocessing(**asked), load=loader("coreml"))
    same = [ours[0] == theirs[0] for ours, theirs in zip(core_ml.top5, portable.top5, strict=True)]
    assert np.mean(same) > 0.9  # the stand-in computes in Float16


@pytest.mark.parametrize(
    ("kind", "asked", "words"),
    [
        ("array NCHW", {"scale": 1}, "with --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225: is that what it was"),
        ("NumPy-style mean and std", IMAGENET | {"scale": 1}, "of 48 images it gets"),
        ("BGR array", {"scale": 1, "mean": (103.939, 116.779, 123.68)}, "with --layout NCHW-BGR"),
        ("normalizes pixels itself", IMAGENET, "may be normalized twice: its program normalizes what it takes"),
        ("scale and bias", IMAGENET, "--scale, --mean and --std are not applied to it"),
    ],
)
def test_wrong_preprocessing_is_told(
    kind: str, asked: dict[str, Any], words: str, split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package, *_ = made(kind, tmp_path / "m.mlpackage", split)
    evaluate([package], split, Preprocessing(**asked))
    assert words in capsys.readouterr().err


def test_what_nobody_says_is_refused_in_a_line(
    split: Split, tmp_path: Path, spec: str, refused: Any, run_bench: Any
) -> None:
    package, *_ = made("two outputs", tmp_path / "m.mlpackage", split)
    line = refused("accuracy", package, "--data", spec)
    assert "input 'x' takes numbers, and nothing says which ones pixels become; say it with --scale" in line
    line = refused("accuracy", package, "--data", spec, "--scale", 1)
    assert "it has several outputs; --output says which one: total, scores" in line
    assert "no output 'score' with scores: total, scores; did you mean 'scores'?" in refused(
        "compare", package, package, "--data", spec, "--scale", 1, "--output", "score"
    )
    options = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--output", "scores", "--data", spec]
    code, output, errors = run_bench("accuracy", package, *options, "--json", "--limit", 20)
    assert (code, '"images": 20' in output) == (0, True), errors
    for wrong, told in (
        (["--mean", "1,2"], "--mean: expected 1 number, or 3 for red, green and blue, got 2"),
        (["--mean", "x"], "--mean x: expected a number, or three with commas"),
        (["--std", "0"], "--std: expected numbers above 0, got 0"),
        (["--layout", "CHW"], "--layout: Input should be 'NCHW', 'NHWC', 'NCHW-BGR' or 'NHWC-BGR'"),
        (["--resize", 40, "--crop", "scaleFill"], "resize: scaleFill says how large the image becomes; leave it out"),
        (["--layout", "nhwc"], "has shape [1, 3, 32, 32], which is not as NHWC of 1 or 3 channels"),
        (["--resize", 16], "takes 32 pixels a side, of images resized to 16: expected more"),
    ):
        pairs = zip(options[::2], options[1::2], strict=True)
        others = [part for pair in pairs if pair[0] not in wrong for part in pair]
        assert told in refused("accuracy", package, *others, *wrong), wrong


STEPS: dict[str, tuple[Callable[[Tensor], Tensor], int | None]] = {
    "x / 255": (lambda x: x / 255, 255),
    "(x / 255 - m) / s": (lambda x: NORMALIZE(x / 255), 255),
    "(x - m) / s": (lambda x: NORMALIZE(x), 1),
    "2 x - 1": (lambda x: 2 * x - 1, 1),
    "1 - x": (lambda x: 1 - x, 1),
    "x - 120": (lambda x: x - 120, 255),
    "x / 127.5 - 1": (lambda x: x / 127.5 - 1, 255),
    "x": (lambda x: x, None),
    "relu(x)": (lambda x: torch.relu(x) - 1, None),
}


@pytest.mark.parametrize("steps", STEPS)
def test_what_a_program_normalizes_is_seen(steps: str, tmp_path: Path) -> None:
    before, highest = STEPS[steps]
    package = save(tmp_path / "m.mlpackage", Around(Net(), before), ct.TensorType("x", shape=NCHW), NCHW, **FLOAT32)
    found = normalization_of(read(package), "x")
    assert (found and found.highest) == highest
    if found:
        x = torch.rand(1, 3, 4, 4) * highest
        factor, summand = (torch.tensor(values).view(1, -1, 1, 1) for values in found[:2])
        torch.testing.assert_close(factor * x + summand, before(x).to(factor.dtype), rtol=1e-4, atol=1e-4)


def test_too_many_channels_and_no_square(split: Split, tmp_path: Path) -> None:
    for shape, words in (
        ((1, 4, 32, 32), "has shape [1, 4, 32, 32], which is not an image of 1 or 3 channels"),
        ((1, 3, 32, 48), "expected a square image, not 32 x 48"),
        ((2, 3, 32, 32), "has shape [2, 3, 32, 32], which is not an image"),
    ):
        package = save(tmp_path / f"{shape}.mlpackage", Net(shape[1]), ct.TensorType("x", shape=shape), shape)
        with pytest.raises(PackageError) as refusal:
            evaluate([package], split, Preprocessing(scale=1))
        assert words in str(refusal.value)
