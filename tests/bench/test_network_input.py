"""What networks of a suite take: as the suite says, as torchvision says of its weights, or as usual."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.network_input import as_taken
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.data import DataSet, load_images, open_data
from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.preprocessing import USUAL, Preprocessing, Recipe, recipe_of
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.training import IMAGE_MEAN, IMAGE_STD
from coreml_prune_bench.records.accuracy import read_records

SUITE = """
description = "d"
models = ["tiny"]
weights = "none"
data.default = "digits#60"
training = {epochs = 1}
[[configs]]
algorithm = "post-training"
sparsity = 0.5
"""


@pytest.mark.parametrize(
    ("name", "size", "view"),
    [
        ("resnet50", 224, {"resize": 232}),
        ("resnet18", 224, {}),
        ("swin_t", 224, {"resize": 232, "interpolation": "bicubic"}),
        ("efficientnet_v2_l", 480, {"interpolation": "bicubic"}),
        ("inception_v3", 299, {"resize": 342}),
    ],
)
def test_torchvision_says_what_its_weights_were_evaluated_with(
    name: str, size: int, view: dict[str, Any], images: Path
) -> None:
    data = replace(open_data(f"imagefolder:{images}"), image_size=224)
    told: list[str] = []
    network = get_network(f"torchvision:{name}")
    _, taken = as_taken(network, data, pretrained=True, say=told.append)
    assert (taken.image_size, taken.preprocessing.changes()) == (size, view)
    assert [f"as {name} (torchvision) was evaluated" in line for line in told] == [True] * bool(view)
    for pretrained, asked_size in ((False, None), (True, 96)):
        _, taken = as_taken(network, data, pretrained=pretrained, image_size=asked_size)
        assert (taken.image_size, taken.preprocessing) == (asked_size or 224, USUAL)
    _, taken = as_taken(network, data, pretrained=True, asked=Preprocessing(crop="scaleFill"))
    assert taken.preprocessing == Preprocessing(crop="scaleFill")


def test_a_recipe_as_timm_words_it() -> None:
    half = (0.5, 0.5, 0.5)
    assert recipe_of(224, 248, "bicubic", half, half) == Recipe(
        224, Preprocessing(resize=248, interpolation="bicubic", mean=half, std=half)
    )
    squashed = recipe_of(448, None, "bicubic", half, half)
    assert squashed is not None
    assert squashed.preprocessing.crop == "scaleFill"
    assert recipe_of(224, 256, "random", half, half) is None


@pytest.mark.parametrize(
    "asked", [Preprocessing(mean=(0.5,), std=(0.5,)), Preprocessing(scale=1, mean=(104, 117, 123))]
)
def test_a_network_of_other_numbers_takes_what_all_do(asked: Preprocessing, data: DataSet) -> None:
    """The package's own normalization is ImageNet's; what the network sees is what it was trained with."""
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(5))
    plain(torch.rand(1, 3, 32, 32))
    network = Network("n", "N", lambda _: plain, None, Scope())
    pixels = torch.from_numpy(load_images(data.val, range(8), 32)).permute(0, 3, 1, 2).float()
    factor, summand = (torch.tensor(values).view(1, -1, 1, 1) for values in asked.affine())
    expected, other = plain(pixels * factor + summand).detach(), plain(pixels / 255).detach()
    taken, _ = as_taken(network, data, pretrained=True, asked=asked)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    built = taken.build(5)
    torch.testing.assert_close(built((pixels / 255 - mean) / std), expected, rtol=1e-4, atol=1e-3)
    again = taken.taking(Preprocessing(scale=1 / 255)).build(5)  # the later word counts
    torch.testing.assert_close(again((pixels / 255 - mean) / std), other, rtol=1e-4, atol=1e-3)


@pytest.fixture
def data(images: Path) -> DataSet:
    return open_data(f"imagefolder:{images}")


def test_a_suites_preprocessing_is_part_of_keys_and_records(tmp_path: Path, run_bench: Any, refused: Any) -> None:
    plain, other, wrong = (tmp_path / f"{name}.toml" for name in ("plain", "other", "wrong"))
    plain.write_text(SUITE)
    other.write_text(SUITE + '[preprocessing]\nmean = 0.5\nstd = 0.5\ncrop = "scaleFill"\n')
    keys = [{cell.key for cell in lay_out(load_suite(str(path)), None)} for path in (plain, other)]
    assert not keys[0] & keys[1]
    code, _, errors = run_bench("run", "--suite", other, "--limit", 20, "--results", tmp_path / "results")
    assert code == 0, errors
    said = "Tiny: images stretched to 32 pixels, bilinear; numbers: (pixel / 255 - 0.5) / 0.5 ([preprocessing])"
    assert errors.count(said) == 1
    for record in read_records(tmp_path / "results"):
        assert record.data.preprocessing == Preprocessing(mean=(0.5,), std=(0.5,), crop="scaleFill")
        assert record.predictions is not None
        assert len(record.predictions.labels) == 20
    for text, told in (
        ("[preprocessing]\nlayout = 'NHWC'\n", "preprocessing.layout: what is built takes images"),
        ("[preprocessing]\nmeen = 1\n", "unknown key 'preprocessing.meen'; did you mean 'mean'?"),
        ("[preprocessing]\nstd = 0\n", "preprocessing.std: expected numbers above 0, got 0"),
        ("[preprocessing]\ncrop = 'squash'\n", "preprocessing.crop: Input should be 'center', 'centerCrop'"),
    ):
        wrong.write_text(SUITE + text)
        assert told in refused("run", "--suite", wrong)


def test_few_images_are_drawn_from_all_over(data: DataSet) -> None:
    from coreml_prune_bench.data.halves import open_data_or_part

    few = open_data_or_part(f"{data.spec}#5")
    assert len(few.val) == 5
    assert len(set(few.val.labels.tolist())) > 1
    assert few.spec == f"{data.spec}#5"
    assert few.val.name == "val, 5 of 12"
    assert few.place == f"{data.place}#5"
    assert few.train is not None
    assert len(few.train) == 12
    places = [data.val.ids.index(name) for name in few.val.ids]
    assert np.array_equal(data.val.labels[places], few.val.labels)
    assert open_data_or_part(f"{data.spec}#5").val.fingerprint == few.val.fingerprint != data.val.fingerprint
    assert open_data_or_part(f"{data.spec}#500").val.ids == data.val.ids
    folder = Path(data.spec.partition(":")[2])
    folder.rename(folder.with_name("set#3"))
    assert len(open_data_or_part(f"imagefolder:{folder.with_name('set#3')}").val) == 12  # a folder called so
