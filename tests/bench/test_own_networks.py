"""Networks that the user brings, through every step."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision
from torch import nn

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.bench.run import RunOptions, build_all, run
from coreml_prune_bench.bench.suite import choose, load_suite
from coreml_prune_bench.data import load_images, open_data
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.pruning.blockwise_reconstruction.block import relative_error
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.runtimes import portable
from tests.models.own_files import SUITE, WALKING


@pytest.mark.slow
def test_a_users_file_goes_through_every_algorithm_and_one_that_cannot_be_traced_through_the_others(own_files):
    cells = lay_out(load_suite(str(own_files / "mine.toml")), None)
    outcome = run(cells, RunOptions(Store(own_files / "results")))
    records = {(r.network.name, r.pruning.algorithm): r for r in outcome.records}
    assert set(records) == {
        *(("net-net", algorithm) for algorithm in ("dense", "post-training", *WALKING, "magnitude-pruner")),
        *(("net-branching", algorithm) for algorithm in ("dense", "post-training", *WALKING)),
    }
    assert [(r.network.name, r.pruning.algorithm) for r in outcome.failed] == [("net-branching", a) for a in WALKING]
    for failed in outcome.failed:
        assert failed.reason
        assert "torch.fx cannot trace" in failed.reason
        assert "\n" not in failed.reason
    for (name, algorithm), record in records.items():
        assert record.network.spec == f"{own_files}/{name.replace('-', '.py:')}"
        if record.package and algorithm != "dense":
            layers = {layer.name: layer for layer in record.package.layers}
            assert set(layers) == {"stem", "block.conv", "attention.in_proj", "attention.out_proj", "head"}
            assert all(layer.sparsity == pytest.approx(0.5, abs=0.02) for layer in layers.values())
            assert record.pruning.scope == "conv + linear; 1 layer cannot be pruned"  # the unused one
            assert "batch_norm" not in record.package.operations
    again = run(lay_out(load_suite(str(own_files / "mine.toml")), None), RunOptions(Store(own_files / "results")))
    assert again.measured == len(WALKING)  # the failed ones are tried again


def test_a_network_that_does_not_take_the_images_fails_and_the_next_is_built(own_files):
    suite = choose(
        load_suite(str(own_files / "mine.toml")), own=["torchvision:inception_v3", f"{own_files}/net.py:net"]
    )
    suite = suite.model_copy(update={"configs": ()})
    built, problems = build_all(lay_out(suite, None), RunOptions(Store(own_files / "results")))
    assert [path.name for _, path in built] == ["net-net.mlpackage"]
    (problem,) = problems
    assert "torchvision-inception_v3 fails on an image [1, 3, 32, 32]: RuntimeError: " in problem


MANY_KINDS = """
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(16, 20) for _ in range(2))
        self.patches = parametrizations.weight_norm(nn.Conv2d(3, 16, 4, 4))
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.second.weight = self.first.weight
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.squeeze = nn.utils.spectral_norm(nn.Linear(16, 16))

    def forward(self, images):
        x = self.patches(images).relu()
        for _ in range(2):
            x = self.second(self.first(x).relu()).relu()
        x = self.encoder(x.flatten(2).transpose(1, 2)).mean(1)
        x = x * self.squeeze(x).sigmoid()
        return sum(head(x) for head in self.heads) / 2


def net():
    return torch.compile(nn.DataParallel(Net()))
"""


@pytest.mark.slow
def test_what_torch_can_make_of_a_network_is_pruned_and_converted_as_torch_computes_it(own_files, monkeypatch):
    """A head of two, registered first, for other classes; weights that are computed, shared, called twice; wrappers."""
    (own_files / "net.py").write_text(MANY_KINDS)
    suite = SUITE.replace('models = ["net.py:net", "net.py:branching"]\nweights = "none"', 'models = ["net.py:net"]')
    (own_files / "mine.toml").write_text(suite.replace("epochs = 3", "epochs = 1").replace("_size = 32", "_size = 200"))
    networks: list[nn.Module] = []
    save_dense, save_pruned = type(MLPACKAGE).save_dense, type(MLPACKAGE).save_pruned

    def dense(package_format, model, image_size, path):
        networks.append(model)
        save_dense(package_format, model, image_size, path)

    def pruned(package_format, made, path):
        networks.append(made.model)
        save_pruned(package_format, made, path)

    monkeypatch.setattr(type(MLPACKAGE), "save_dense", dense)
    monkeypatch.setattr(type(MLPACKAGE), "save_pruned", pruned)
    cells = lay_out(load_suite(str(own_files / "mine.toml")), None)
    built, problems = build_all(cells, RunOptions(Store(own_files / "results")))
    assert not problems
    assert len(built) == len(networks) == 5
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    for (cell, path), model in zip(built, networks, strict=True):
        with torch.no_grad():
            expected = model(normalize(pixels)).numpy()
        assert expected.shape == (8, 10)
        found = portable.load(path).predict_batch({"image": pixels})["logits"]
        assert np.abs(found - expected).max() < 5e-3 * np.abs(expected).max(), cell.name
        assert model.second.weight is model.first.weight
        weights = [weight for weight in read_package(path).weights if weight.shape == (16, 16, 3, 3)]
        assert [weight.name.split("_to_")[0] for weight in weights] == ["first_weight"]
        manifest = json.loads((path.parent / "manifest.json").read_text())["made"]
        if cell.config is not None:
            layers = {"heads.0", "heads.1", "patches", "first", "encoder.layers.0.linear1", "encoder.layers.0.linear2"}
            assert manifest["targets"].keys() == layers | {"squeeze"}
            assert all((model.get_parameter(f"{name}.weight") == 0).float().mean() > 0.45 for name in layers)
            assert manifest["scope"] == "conv + linear; 1 layer cannot be pruned"  # attention's own


def test_complex_weights_fail_the_cell_in_a_line(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "class Waves(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(3, 4, 3, dtype=torch.complex64)\n"
        "        self.fc = torch.nn.Linear(4, 10)\n"
        "    def forward(self, x):\n"
        "        return self.fc(self.conv(x.to(torch.complex64)).abs().mean((2, 3)))\n"
        "def net(num_classes=10):\n"
        "    return Waves()\n"
    )
    suite = choose(load_suite("digits"), own=[f"{tmp_path}/net.py:net"])
    suite = suite.model_copy(update={"configs": (), "weights": "pretrained", "training": None})
    _, (problem,) = build_all(lay_out(suite, None), RunOptions(Store(tmp_path / "results")))
    assert problem.endswith(
        "'conv.weight' is complex, which Core ML has no weights for: expected real and imaginary parts as parameters "
        "of their own (torch.view_as_real)"
    )


OTHERS = """
description = "networks outside the three"
models = ["{spec}"]
weights = "{weights}"
trials = 1
data.default = "{data}"
{training}

[[configs]]
algorithm = "post-training"
sparsity = 0.5

[[configs]]
algorithm = "sparse-gpt"
sparsity = 0.5
calibration_samples = 16
batchnorm_samples = 64

[[configs]]
algorithm = "blockwise-reconstruction"
sparsity = 0.5
calibration_samples = 16
held_back_samples = 4
steps = 3
batch_size = 4

[[configs]]
algorithm = "magnitude-pruner"
sparsity = 0.5
training = {{ epochs = 1, batch_size = 20, learning_rate = 0.001 }}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "regnet_y_400mf", "vit_b_16"])
def test_torchvisions_other_networks_go_through_every_algorithm(tmp_path, name):
    training, weights, data, folder = (
        "training = { epochs = 1, batch_size = 32, learning_rate = 0.02 }",
        "none",
        "digits",
        None,
    )
    if name == "vit_b_16":  # takes images of 224 alone, and too long to train
        folder, data = tmp_path, f"imagefolder:{enlarged_digits(tmp_path / 'data')}"
        training, weights = "", "pretrained"
        torch.manual_seed(0)
        reference = torchvision.models.vit_b_16(num_classes=10)
        nn.init.normal_(reference.heads.head.weight, std=0.05)  # torchvision's are zeros
        torch.save(reference.state_dict(), tmp_path / "torchvision-vit_b_16.pth")
    (tmp_path / "others.toml").write_text(
        OTHERS.format(spec=f"torchvision:{name}", weights=weights, data=data, training=training)
    )
    cells = lay_out(load_suite(str(tmp_path / "others.toml")), folder)
    outcome = run(cells, RunOptions(Store(tmp_path / "results")))
    assert not outcome.failed
    for record in outcome.records[1:]:
        assert record.package
        assert "cannot be pruned" not in record.pruning.scope
        assert record.package.whole_model_sparsity == pytest.approx(0.5, abs=0.05)
        assert "batch_norm" not in record.package.operations


def enlarged_digits(folder: Path) -> Path:
    """Four digits a class to train on, and two to evaluate, as 224x224 images."""
    digits = open_data("digits")
    assert digits.train
    for split, count in ((digits.train, 4), (digits.val, 2)):
        for label in range(10):
            (folder / split.name / str(label)).mkdir(parents=True)
            chosen = np.flatnonzero(split.labels == label)[:count]
            for number, image in enumerate(load_images(split, chosen, 32)):
                picture = PIL.Image.fromarray(image).resize((224, 224))
                picture.save(folder / split.name / str(label) / f"{number}.png")
    return folder


def test_the_package_predicts_what_the_network_does_in_torch(own_files, tmp_path):
    model = untrained_model(get_network(f"{own_files}/net.py:branching"), 10).eval()
    to_coreml(model, 32).save(str(tmp_path / "x.mlpackage"))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = model(normalize(pixels)).numpy()
    found = portable.load(tmp_path / "x.mlpackage").predict_batch({"image": pixels})["logits"]
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_blocks_that_give_the_same_for_every_image_are_left_as_they_are():
    """A head of zeros: nothing to fit it to."""
    outputs, constant = torch.rand(3, 2).half(), torch.zeros(3, 2).half()
    assert relative_error(constant, constant) == 0
    assert relative_error(outputs, constant) == torch.inf
