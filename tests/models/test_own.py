"""Networks that the user brings: specs, keys, weights, stages, attention, folding, and one through every step."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision
from torch import nn

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import build_all, run
from coreml_prune_bench.bench.suite import choose, load_suite
from coreml_prune_bench.core.errors import (
    BenchError,
    CellFailedError,
    SuiteError,
    WeightsError,
)
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.data import load_images, open_data
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.attention import Attention, with_callable_projections
from coreml_prune_bench.models.conversion import fold_batchnorm, to_coreml, weight_output
from coreml_prune_bench.models.layers import leave_dense, prunable_layers, stage_names
from coreml_prune_bench.models.own import is_spec, own_network
from coreml_prune_bench.models.pruning.reconstruction import relative_error
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.stages import sequential_view
from coreml_prune_bench.models.tracing import observe
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.models.weight_files import weights_fingerprint
from coreml_prune_bench.models.weights import initial_model, load_pretrained, untrained_model
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.runtimes import portable

NET = """
import torch
from torch import nn
from blocks import Block


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.block = Block(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(16, num_classes)

    def forward(self, images, upside_down=False):
        if upside_down:
            images = images.flip(2)
        x = self.block(torch.relu(self.norm(self.stem(images))))
        x = nn.functional.avg_pool2d(x, 4).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x)[0]
        return self.head(x.mean(1))


class Branching(Net):
    def forward(self, images):
        if images.mean() > 1000:
            images = -images
        return super().forward(images)


def net(num_classes=10):
    return Net(num_classes)


def branching(num_classes=10):
    return Branching(num_classes)


def fixed():
    return Net(7)


def must_be_told(num_classes):
    return Net(num_classes)


def without_head():
    return nn.Conv2d(3, 10, 1)


def wrong():
    return "a network"


def broken():
    return Net(3) + missing


def hungry(depth):
    return Net(depth)
"""
BLOCK = """
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return (x + self.norm(self.conv(x))).relu()
"""
SUITE = """
description = "mine"
models = ["net.py:net", "net.py:branching"]
weights = "none"
trials = 1
data.default = "digits"
training = { epochs = 3, batch_size = 32, learning_rate = 0.02 }

[[configs]]
algorithm = "post-training"
sparsity = 0.5

[[configs]]
algorithm = "sparse-gpt"
sparsity = 0.5
calibration_samples = 32

[[configs]]
algorithm = "blockwise-reconstruction"
sparsity = 0.5
calibration_samples = 32
held_back_samples = 8
steps = 5

[[configs]]
algorithm = "magnitude-pruner"
models = ["net.py:net"]
sparsity = 0.5
training = { epochs = 1, batch_size = 32, learning_rate = 0.01 }
"""


WALKING = ("sparse-gpt", "blockwise-reconstruction")
"""The algorithms that walk a network stage by stage."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks.py").write_text(BLOCK)
    (tmp_path / "mine.toml").write_text(SUITE)
    return tmp_path


# --- specs


def test_a_spec_is_told_from_a_name():
    assert [is_spec(text) for text in ("torchvision:resnet18", "timm:a", "x/y.py:f", "x.py", "resnet50", "tiny")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:", "expected torchvision:NAME, timm:NAME or PATH.py:FUNCTION"),
        ("net.py", "name the function that returns the network: net.py:FUNCTION"),
        ("net.py:missing", "defines no function missing at its top level"),
        ("net.py:hungry", "must be told depth: it is given num_classes at most"),
        ("other.py:net", "No such file"),
        ("syntax.py:net", "is not Python"),
    ],
)
def test_a_spec_that_names_nothing_is_one_clear_line(folder, monkeypatch, spec, message):
    (folder / "syntax.py").write_text("def net(:")
    monkeypatch.chdir(folder)
    with pytest.raises(BenchError) as raised:
        get_network(spec)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", "expected wrong to return a torch.nn.Module, got str"),
        ("broken", "NameError: name 'missing' is not defined"),
        ("without_head", "has no linear layer"),
    ],
)
def test_a_function_that_makes_no_such_network_is_named(folder, function, message):
    network = get_network(f"{folder}/net.py:{function}")
    with pytest.raises(BenchError, match=message) as raised:
        untrained_model(network, 10)
    if function == "broken":
        line = 1 + NET.splitlines().index("    return Net(3) + missing")
        assert f"line {line}: " in str(raised.value)


def test_torchvision_names_are_checked_and_near_ones_shown():
    with pytest.raises(BenchError, match=r"no classification network 'resnet5'; did you mean 'resnet50' or"):
        get_network("torchvision:resnet5").build(10)
    with pytest.raises(BenchError, match="no classification network 'fcn_resnet50'"):
        get_network("torchvision:fcn_resnet50").build(10)


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_timm_is_asked_for_where_it_is_missing():
    with pytest.raises(BenchError, match=r"needs timm, which is not installed: pip install '\.\[timm\]'"):
        get_network("timm:resnet18")


def test_timms_networks_take_what_ours_do_and_are_folded():
    """Trained with other means: what they are given is what their own normalization would make of the pixels."""
    timm = pytest.importorskip("timm")
    model = get_network("timm:mobilenetv3_small_050").build(10).eval()
    assert not any("conv" in name for name, _ in fold_batchnorm(model, 64).named_modules() if "BatchNorm" in name)
    model = get_network("timm:test_vit").build(10).eval()
    torch.manual_seed(0)
    reference = timm.create_model("test_vit", num_classes=10).eval()
    reference.load_state_dict(model.state_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    mean, std = (torch.tensor(reference.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = reference((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
        assert torch.allclose(model(normalize(pixels)), expected, atol=1e-5)


# --- weights


def test_weights_are_those_that_the_function_returns_and_a_fixed_head_is_replaced(folder):
    network = get_network(f"{folder}/net.py:fixed")
    state = load_pretrained(network, None)
    assert torch.equal(initial_model(network, state, 7).head.weight, state["head.weight"])
    assert initial_model(network, state, 10).head.weight.shape == (10, 16)
    assert untrained_model(network, 10).head.weight.shape == (10, 16)


def test_a_function_that_must_be_told_the_classes_has_no_weights_of_its_own(folder):
    network = get_network(f"{folder}/net.py:must_be_told")
    with pytest.raises(WeightsError, match="give num_classes a default"):
        load_pretrained(network, None)
    assert untrained_model(network, 3).head.weight.shape == (3, 16)


@pytest.mark.slow
def test_weights_from_a_folder_are_torchs_layout(tmp_path):
    """Attention's projections included, which we hold otherwise."""
    torch.manual_seed(1)
    reference = torchvision.models.vit_b_16(num_classes=5)
    nn.init.normal_(reference.heads.head.weight)
    torch.save(reference.state_dict(), tmp_path / "torchvision-vit_b_16.pth")
    network = get_network("torchvision:vit_b_16")
    model = initial_model(network, load_pretrained(network, tmp_path), 5)
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(model(images), reference.eval()(images), atol=1e-4)
    assert model.state_dict().keys() == reference.state_dict().keys()
    # Twelve blocks of four, the patches' convolution and the head.
    assert len(prunable_layers(model)) == 12 * 4 + 2


# --- keys


def keys(folder: Path) -> set[str]:
    return {cell.build_key for cell in lay_out(load_suite(str(folder / "mine.toml")), None)}


def test_a_key_depends_on_the_file(folder):
    before = keys(folder)
    (folder / "net.py").write_text(NET.replace("bias=False", "bias=True"))
    assert not keys(folder) & before


def test_the_sources_are_the_file_and_what_it_imports(folder):
    sources = get_network(f"{folder}/net.py:net").own.sources
    before = sources()
    assert set(before) == {"file", "blocks.py", "torch"}
    assert before["torch"] == torch.__version__.split("+")[0]
    (folder / "blocks.py").write_text(BLOCK + "# changed")
    assert sources()["blocks.py"] != before["blocks.py"]
    (folder / "unrelated.py").write_text("x = 1")
    assert set(sources()) == set(before)


def test_a_key_depends_on_the_weights_that_the_function_returns(folder):
    (folder / "weights.txt").write_text("1.0")
    (folder / "net.py").write_text(NET + LOADING)

    def fingerprint() -> str:
        own_network.cache_clear()  # as in another run
        return weights_fingerprint(get_network(f"{folder}/net.py:loaded"), None)

    before = fingerprint()
    assert before == fingerprint()
    (folder / "weights.txt").write_text("2.0")
    assert before != fingerprint()
    assert before.startswith("as loaded returns them: ")


LOADING = """

def loaded():
    from pathlib import Path

    net = Net(10)
    nn.init.constant_(net.head.bias, float((Path(__file__).parent / "weights.txt").read_text()))
    return net
"""


def test_laying_out_imports_no_torch(folder):
    code = (
        "import sys; from coreml_prune_bench.bench.cells import lay_out; "
        "from coreml_prune_bench.bench.suite import load_suite;"
        "[cell.key for cell in lay_out(load_suite(sys.argv[1]), None)]; print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(folder / "mine.toml")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "False"


def test_the_command_line_puts_networks_in_place_of_the_suites_or_beside_them(folder):
    suite = load_suite("digits")
    spec = f"{folder}/net.py:net"
    assert choose(suite, own=[spec]).models == (spec,)
    beside = choose(suite, own=[spec, "torchvision:resnet18"], models=["resnet50"], data=[f"{spec}=digits"])
    assert beside.models == ("resnet50", spec, "torchvision:resnet18")
    assert beside.data[spec] == "digits"
    with pytest.raises(BenchError, match="unknown network 'resnet5'"):
        choose(suite, own=["resnet5"])


def test_two_networks_of_one_name_are_refused(folder):
    (folder / "other").mkdir()
    (folder / "other" / "net.py").write_text(NET)
    suite = choose(load_suite("digits"), own=[f"{folder}/net.py:net", f"{folder}/other/net.py:net"])
    with pytest.raises(SuiteError, match="are both named net-net"):
        lay_out(suite, None)


# --- what is found out about a network


class Odd(nn.Module):
    """Folding must keep away from: a convolution seen by two, called twice, or changed before its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.seen, self.twice, self.changed = (nn.Conv2d(3, 3, 1) for _ in range(4))
        self.plain_norm, self.seen_norm, self.twice_norm, self.changed_norm = (nn.BatchNorm2d(3) for _ in range(4))
        self.alias = self.plain
        self.head = nn.Linear(3, 2)
        for norm in (self.plain_norm, self.seen_norm, self.twice_norm, self.changed_norm):
            nn.init.uniform_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x):
        x = self.plain_norm(self.alias(x))
        y = self.seen(x)
        x = self.seen_norm(y) + y
        x = self.twice_norm(self.twice(self.twice(x)))
        x = self.changed_norm(self.changed(x).relu_())
        return self.head(x.mean((2, 3)))


def test_only_what_can_be_folded_is_and_the_function_stays():
    model = Odd().eval()
    assert observe(model, 8).foldable == [("plain", "plain_norm")]
    folded = fold_batchnorm(model, 8)
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(folded(images), model(images), atol=1e-5)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == 3


@pytest.mark.parametrize("options", [{}, {"batch_first": True, "bias": False}])
@pytest.mark.parametrize("alike", [True, False])
def test_attention_is_torchs(options, alike):
    torch.manual_seed(0)
    reference = nn.MultiheadAttention(12, 3, **options).eval()
    ours = Attention(reference)
    query, key, value = (torch.rand(5, 5, 12) for _ in range(3))
    given = (query, query, query) if alike else (query, key, value)
    padding = torch.zeros(5, 5, dtype=torch.bool)
    padding[:, 4] = True
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    for call in (
        {},
        {"need_weights": False},
        {"attn_mask": causal, "need_weights": False},
        {"attn_mask": torch.rand(15, 5, 5), "average_attn_weights": False},
        {"key_padding_mask": padding, "attn_mask": causal},
    ):
        expected, weights = reference(*given, **call)
        found, own_weights = ours(*given, **call)
        assert torch.allclose(found, expected, atol=1e-6), call
        assert (own_weights is None) == (weights is None)
        if weights is not None:
            assert torch.allclose(own_weights, weights, atol=1e-6)
    assert ours.state_dict().keys() == reference.state_dict().keys()
    again = Attention(nn.MultiheadAttention(12, 3, **options))
    again.load_state_dict(reference.state_dict())
    assert torch.equal(again.in_proj.weight, reference.in_proj_weight)


def test_attention_that_is_another_kind_stays():
    model = nn.ModuleList([nn.MultiheadAttention(12, 3, kdim=6), nn.MultiheadAttention(12, 3, add_zero_attn=True)])
    assert not any(isinstance(module, Attention) for module in with_callable_projections(model).modules())


@pytest.mark.parametrize(
    ("name", "most"), [("efficientnet_b0", 5), ("regnet_y_400mf", 6), ("densenet121", 48), ("shufflenet_v2_x0_5", 5)]
)
def test_stages_of_networks_that_are_not_sequential(name, most):
    """The most layers in a stage: those of a block, and of a dense block, in which no single tensor lives."""
    network = get_network(f"torchvision:{name}")
    model = untrained_model(network, 10).eval()
    view = network.sequential(model)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(view(images), model(images))
    layers = [list(prunable_layers(stage)) for stage in view]
    assert sorted(name for stage in layers for name in stage) == sorted(prunable_layers(model))
    assert max(map(len, layers)) == most


class Branch(nn.Module):
    """What torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x


class Chain(nn.Module):
    """A layer used twice, with another between; a plain chain; a block that cannot be traced; constants."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.between, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.first, self.norm, self.branch = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Branch()
        self.offset = nn.Parameter(torch.rand(4, 1, 1))
        self.head = nn.Linear(4, 2)

    def forward(self, x, flip=None, scale=1.0):
        if flip is not None:
            x = x.flip(flip)
        x = torch.relu(self.norm(self.first(x))) * scale
        x = self.shared(self.between(self.shared(x)))
        x = self.branch(x + self.offset)
        return self.head(self.last(x).mean((2, 3)))


def test_a_layer_that_is_called_twice_has_one_stage_and_code_that_cannot_be_traced_is_one_block():
    model = Chain().eval()
    view = sequential_view(model, "chain")
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(view(images), model(images))
    layers = [list(prunable_layers(stage)) for stage in view]
    assert [stage for stage in layers if stage] == [
        ["first"], ["shared", "between"], ["branch.conv"], ["last"], ["head"],
    ]  # fmt: skip
    assert stage_names(view)[0] == "first"


def test_a_network_that_cannot_be_traced_says_why_and_what_to_do():
    with pytest.raises(CellFailedError, match=r"branch cannot be cut into stages.*control flow.*use post-training"):
        sequential_view(Branch(), "branch")


def test_layers_left_dense_are_no_algorithms():
    model = Chain()
    leave_dense(model, ["between"])
    assert "between" not in prunable_layers(model)
    assert "between" not in prunable_layers(fold_batchnorm(model.eval(), 8))


def test_names_with_digits_and_hyphens_are_those_of_the_package(tmp_path):
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleDict({"block1-0": nn.Conv2d(3, 8, 3)})
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 36, 2))

        def forward(self, x):
            return self.head(self.blocks["block1-0"](x))

    to_coreml(Named().eval(), 8).save(str(tmp_path / "x.mlpackage"))
    package = read_package(tmp_path / "x.mlpackage")
    for layer in ("blocks.block1-0", "head.1"):
        assert package.weight_of_layer(layer).name == weight_output(layer)


def test_layers_named_by_numbers_or_with_an_underscore_are_those_of_the_package(tmp_path):
    class Underscored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._head = nn.Linear(8 * 36, 2)

        def forward(self, x):
            return self._head(x)

    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), Underscored())
    to_coreml(network.eval(), 8).save(str(tmp_path / "x.mlpackage"))
    package = read_package(tmp_path / "x.mlpackage")
    for layer in ("0", "4._head"):
        assert package.weight_of_layer(layer).name == weight_output(layer)


def test_a_network_that_is_nothing_but_layers_in_a_row_is_pruned(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build(num_classes=10):\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),"
        " nn.Linear(8 * 225, num_classes))\n"
    )
    (tmp_path / "row.toml").write_text(
        'description = "d"\nmodels = ["net.py:build"]\nweights = "none"\ndata.default = "digits"\ntraining.epochs = 1\n'
        '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n'
        '[[configs]]\nalgorithm = "sparse-gpt"\nsparsity = 0.5\ncalibration_samples = 16\nquantize_bits = 8\n'
    )
    outcome = run(lay_out(load_suite(str(tmp_path / "row.toml")), None), Store(tmp_path / "results"), Reporter())
    assert [r.reason for r in outcome.failed] == []
    layers = {r.pruning.algorithm: {layer.name for layer in r.package.layers} for r in outcome.records if r.package}
    assert layers["post-training"] == layers["sparse-gpt"] == {"0", "4"}


# --- through every step


def test_a_users_file_goes_through_every_algorithm_and_one_that_cannot_be_traced_through_the_others(folder):
    cells = lay_out(load_suite(str(folder / "mine.toml")), None)
    outcome = run(cells, Store(folder / "results"), Reporter())
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
        assert record.network.spec == f"{folder}/{name.replace('-', '.py:')}"
        if record.package and algorithm != "dense":
            layers = {layer.name: layer for layer in record.package.layers}
            assert set(layers) == {"stem", "block.conv", "attention.in_proj", "attention.out_proj", "head"}
            assert all(layer.sparsity == pytest.approx(0.5, abs=0.02) for layer in layers.values())
            assert record.pruning.scope == "conv + linear; 1 layer cannot be pruned"  # the unused one
            assert "batch_norm" not in record.package.operations
    again = run(lay_out(load_suite(str(folder / "mine.toml")), None), Store(folder / "results"), Reporter())
    assert again.measured == len(WALKING)  # the failed ones are tried again


def test_a_network_that_does_not_take_the_images_fails_and_the_next_is_built(folder):
    suite = choose(load_suite(str(folder / "mine.toml")), own=["torchvision:inception_v3", f"{folder}/net.py:net"])
    suite = suite.model_copy(update={"configs": ()})
    built, problems = build_all(lay_out(suite, None), Store(folder / "results"), Reporter())
    assert [path.name for _, path in built] == ["net-net.mlpackage"]
    (problem,) = problems
    assert "torchvision-inception_v3 fails on an image [1, 3, 32, 32] of digits: RuntimeError: " in problem


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
    outcome = run(cells, Store(tmp_path / "results"), Reporter())
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


def test_the_package_predicts_what_the_network_does_in_torch(folder, tmp_path):
    model = untrained_model(get_network(f"{folder}/net.py:branching"), 10).eval()
    to_coreml(model, 32).save(str(tmp_path / "x.mlpackage"))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = model(normalize(pixels)).numpy()
    found = portable.load(tmp_path / "x.mlpackage").predict_batch({"image": pixels})["logits"]
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_weights_of_the_default_kind_are_known_without_downloading_them():
    assert weights_fingerprint(get_network("torchvision:resnet18"), None) == "torchvision's default for resnet18"


def test_blocks_that_give_the_same_for_every_image_are_left_as_they_are():
    """A head of zeros: nothing to fit it to."""
    outputs, constant = torch.rand(3, 2).half(), torch.zeros(3, 2).half()
    assert relative_error(constant, constant) == 0
    assert relative_error(outputs, constant) == torch.inf
