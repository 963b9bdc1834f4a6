"""A network as a Core AI asset: what is stored is what torch has, and Apple's own runtime computes what torch does."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from coreml_prune_bench.aimodel.naming import add_names
from coreml_prune_bench.aimodel.programs import read_package, read_program
from coreml_prune_bench.core.errors import CellFailedError
from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.mlprogram.summary import kept_in
from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.coreai import save_coreai
from coreml_prune_bench.models.training import IMAGE_MEAN, IMAGE_STD
from coreml_prune_bench.runtimes import portable

pytest.importorskip("coreai_torch", reason="without the extra coreai")

SIZE = 32


class Small(nn.Sequential):
    """Its last convolution has no weight that is not zero, two of its layers have the same weights."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
        self[4].load_state_dict(self[3].state_dict())
        with torch.no_grad():
            self[1].running_mean.normal_()
            self[5].weight.zero_()
            for layer in (self[0], self[8]):
                layer.weight[torch.rand_like(layer.weight) < 0.5] = 0


@pytest.fixture(scope="module")
def model() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def asset(model: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("asset") / "small.aimodel"
    return saved(model, path)


def saved(model: nn.Module, path: Path) -> Path:
    add_names(path, "image", save_coreai(model, SIZE, path, sparse=["0", "5", "8"]))
    return path


def test_each_weight_is_stored_as_torch_has_it_under_its_layer(model: Small, asset: Path) -> None:
    folded = fold_batchnorm(model, SIZE)
    package, program = read_package(asset), read_program(asset)
    weights = {layer: package.weight_of_layer(layer) for layer in ("0", "3", "4", "5", "8")}
    assert {layer: weight.storage for layer, weight in weights.items()} == {
        "0": "sparse", "3": "dense", "4": "dense", "5": "sparse", "8": "sparse"
    }  # fmt: skip
    kept = kept_in(program, [weight.name for weight in weights.values()])
    for layer, weight in weights.items():
        half = folded.get_submodule(layer).get_parameter("weight").detach().half().numpy()
        assert weight.shape == half.shape
        assert np.array_equal(kept[weight.name], half != 0)
        assert weight.zeros == int((half == 0).sum())
    assert package.deployment_target == "iOS27 / macOS27"
    assert not any(name in package.operations for name in ("coreai.batch_norm", "coreai.rsqrt"))


def test_torch_apples_runtime_and_the_portable_one_agree(model: Small, asset: Path, draw: np.random.Generator) -> None:
    coreai = pytest.importorskip("coreai.runtime")
    from coreai.authoring import AIModelAsset

    pixels = draw.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    ours = portable.load(asset).predict_batch({"image": pixels})["logits"]
    normalized = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - torch.tensor(IMAGE_MEAN).view(3, 1, 1)) / (
        torch.tensor(IMAGE_STD).view(3, 1, 1)
    )
    with torch.no_grad():
        expected = model(normalized).numpy()

    async def apples() -> list[np.ndarray]:
        async with AIModelAsset.load(asset).executable() as executable:
            function = executable.load_function("main")
            one_by_one = [np.ascontiguousarray(image.transpose(2, 0, 1)[None]) for image in pixels]
            return [(await function({"image": coreai.NDArray(one)}))["logits"].numpy() for one in one_by_one]

    theirs = np.concatenate(asyncio.run(apples())).astype(np.float32)
    assert np.abs(ours - expected).max() < 2e-3  # weights are of Float16
    assert np.abs(ours - theirs).max() < 1e-2  # so is all that Apple's runtime computes


def test_the_same_network_is_the_same_bytes_and_tells_nothing_of_this_machine(
    model: Small, asset: Path, tmp_path: Path
) -> None:
    assert tree_hash(saved(model, tmp_path / "small.aimodel")) == tree_hash(asset)
    content = b"".join(path.read_bytes() for path in asset.iterdir())
    assert b"site-packages" not in content
    assert b"creationDate" not in content


def test_a_network_that_cannot_be_exported_fails_in_a_line(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x).mean((2, 3))
            return y if y.sum() > 0 else -y

    with pytest.raises(CellFailedError, match=r"torch\.export and Core AI's converter cannot convert it: .*"):
        save_coreai(Branches().eval(), SIZE, tmp_path / "m.aimodel")
    assert not (tmp_path / "m.aimodel").exists()
