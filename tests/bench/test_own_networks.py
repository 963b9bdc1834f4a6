"""Networks that the user brings, through every step."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision
from torch import nn

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, build_all, run
from coreml_prune_bench.bench.suite import choose, load_suite
from coreml_prune_bench.data import load_images, open_data
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.pruning.blockwise_reconstruction.prune import relative_error
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.runtimes import portable
from tests.models.own_files import WALKING


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
    assert "torchvision-inception_v3 fails on an image [1, 3, 32, 32] of digits: RuntimeError: " in problem


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
