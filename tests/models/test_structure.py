"""What is found out about a network: what can be folded, attention, stages, and the names of layers."""

import pytest
import torch
from torch import nn

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.core.errors import (
    CellFailedError,
)
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.attention import Attention, with_callable_projections
from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.layers import leave_dense, prunable_layers, stage_names
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.stages import sequential_view
from coreml_prune_bench.models.tracing import observe
from coreml_prune_bench.models.weight_names import weight_output
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.store import Store


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


class Halved(nn.Sequential):
    def forward(self, images):
        return super().forward(images.double().float()).half()


def test_a_stage_is_not_called_as_what_every_module_has():
    model = Halved(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    view = sequential_view(model, "net")
    assert "half-2" in dict(view.named_children())
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(view(images), model(images))


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
    outcome = run(lay_out(load_suite(str(tmp_path / "row.toml")), None), RunOptions(Store(tmp_path / "results")))
    assert [r.reason for r in outcome.failed] == []
    layers = {r.pruning.algorithm: {layer.name for layer in r.package.layers} for r in outcome.records if r.package}
    assert layers["post-training"] == layers["sparse-gpt"] == {"0", "4"}
