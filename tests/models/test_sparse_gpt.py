"""SparseGPT's walk, against Core ML Tools' own compressor and against Hessians by its own code."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from coremltools.optimize.torch.layerwise_compression import (
    ModuleSparseGPTConfig,
)
from coremltools.optimize.torch.layerwise_compression.algorithms import SparseGPT
from torch import nn
from torch.nn import functional

import coreml_prune_bench.models.pruning.sparse_gpt.prune
from coreml_prune_bench.models.attention import Attention
from coreml_prune_bench.models.devices import CPU, describe
from coreml_prune_bench.models.layers import is_depthwise, prunable_layers
from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.pruning.sparse_gpt.hessians import Hessian, add_rows
from coreml_prune_bench.models.pruning.sparse_gpt.surgery import operate
from coreml_prune_bench.models.pruning.sparse_gpt.walk import prune_stages
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.stages import sequential_view, split_at
from coreml_prune_bench.models.training import Session, calibration_batches
from tests.latency.noise import Noise
from tests.models.layerwise import CONFIG, prune_by_coremltools
from tests.models.tiny import SIZE, dense
from tests.tiny_network import TINY


class Residual(nn.Module):
    """Two layers on one input, a kernel with stride, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(8, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.wide = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.gate = nn.Conv2d(8, 4, 1)
        self.shortcut = nn.Conv2d(8, 8, 1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = functional.relu(self.norm(self.narrow(x))) * self.gate(x).sigmoid()
        return functional.relu(self.wide(inside) + self.shortcut(x))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(8)
        self.attention = Attention(nn.MultiheadAttention(8, 2, batch_first=True))
        self.after = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.after(x))


class Tokens(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2)


class Pooled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1)


def network() -> nn.Module:
    torch.manual_seed(0)
    blocks = OrderedDict(
        stem=nn.Conv2d(3, 8, 7, stride=2, padding=3),
        first=Residual(),
        depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        second=Residual(),
        tokens=Tokens(),
        transformer=Transformer(),
        pooled=Pooled(),
        head=nn.Linear(8, 5),
    )
    return nn.Sequential(blocks).eval()


def batches() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(size, 3, 24, 20) for size in (4, 4, 3)]


def pruned_by_coremltools(model: nn.Module) -> dict[str, torch.Tensor]:
    prune_by_coremltools(model, sequential_view(model, "network"), batches())
    return {name: layer.weight.detach() for name, layer in prunable_layers(model).items()}


def test_every_layer_is_pruned_as_by_coremltools():
    expected = pruned_by_coremltools(network())
    model = network()
    layers = {name: layer for name, layer in prunable_layers(model).items() if not is_depthwise(layer)}
    steps: list[tuple[int, int]] = []
    prune_stages(
        list(sequential_view(model, "network")), batches(), layers, dict.fromkeys(layers, CONFIG),
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert len(layers) == 14
    for name, layer in layers.items():
        assert (layer.weight == 0).equal(expected[name] == 0), name
        torch.testing.assert_close(layer.weight, expected[name], rtol=1e-3, atol=1e-5)
        one_more = 1.01 / layer.weight.numel()  # of a group the threshold itself goes, too
        assert (layer.weight == 0).float().mean() == pytest.approx(0.5, abs=max(0.02, one_more))
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 2, 3),
        nn.Conv2d(3, 2, 3, padding=1),
        nn.Conv2d(3, 2, (5, 3), padding=(2, 0)),
        nn.Conv2d(3, 2, (3, 5), stride=(1, 2), padding=(3, 1)),
        nn.Conv2d(3, 2, 7, stride=2, padding=3),
        nn.Conv2d(3, 2, 3, stride=3),
        nn.Conv2d(3, 2, 3, dilation=2, padding=2),
        nn.Conv2d(3, 2, 3, stride=2, dilation=(2, 1), padding=(1, 0)),
        nn.Conv2d(3, 2, 5, stride=2, dilation=3, padding=6),
        nn.Conv2d(3, 2, (9, 1)),
        nn.Conv2d(3, 2, (9, 11)),
        nn.Conv2d(3, 2, 1, stride=2),
        nn.Conv2d(3, 2, 1, padding=1),
        nn.Linear(11, 2),
    ],
    ids=str,
)
def test_a_hessian_is_that_of_coremltools(layer):
    reference, hessian = SparseGPT(layer, CONFIG), Hessian(layer)
    torch.manual_seed(0)
    for number in (2, 3):
        images = torch.randn(number, 3, 9, 11)
        outputs = layer(images)
        hessian.add(images)
        reference.add_batch(images.flatten(1, -2) if isinstance(layer, nn.Linear) else images, outputs)
    torch.testing.assert_close(hessian.mean(), reference._hessian, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        ModuleSparseGPTConfig(target_sparsity=0.9, weight_dtype="float32", processing_group_size=50),
        ModuleSparseGPTConfig(target_sparsity=0.3, weight_dtype="float32", hessian_dampening=0.1),
        ModuleSparseGPTConfig(n_m_ratio=(2, 4), weight_dtype="float32"),
        ModuleSparseGPTConfig(n_m_ratio=(5, 7), weight_dtype="float32", processing_group_size=126),
    ],
)
@pytest.mark.parametrize("unseen", [0, 40])
def test_weights_are_chosen_and_corrected_as_by_coremltools(config, unseen):
    torch.manual_seed(0)
    layer = nn.Linear(300, 70)
    inputs = torch.randn(900, 300) @ torch.randn(300, 300) / 17
    inputs[:, 100 : 100 + unseen] = 0
    hessian, weight = inputs.t() @ inputs, layer.weight.detach().clone()
    found = operate(weight, hessian.clone(), config)
    reference = SparseGPT(layer, config)
    reference._hessian, reference._inp1, reference._out1 = hessian.clone(), inputs[:1], layer(inputs[:1])
    with torch.no_grad():
        reference._compress_impl()
    assert ((found == 0) == (layer.weight == 0)).float().mean() > 0.999
    both = (found != 0) & (layer.weight != 0)
    assert (found - layer.weight)[both].norm() < 1e-3 * layer.weight[both].norm()
    assert (found[:, 100 : 100 + unseen] == 0).all()
    assert not weight.equal(found)


def test_nothing_that_came_in_is_zero():
    assert not Hessian(nn.Conv2d(3, 2, 3)).mean().any()
    assert Hessian(nn.Linear(3, 2)).mean().shape == (3, 3)


def test_a_stage_is_what_pruning_does_not_change_and_the_rest():
    model = Transformer().eval()
    (stage,) = sequential_view(nn.Sequential(OrderedDict(block=model)), "network")
    x = torch.randn(2, 5, 8)
    parts = split_at(stage, [model.mlp[0], model.mlp[2]])
    assert parts is not None
    before, rest = parts
    with torch.no_grad():
        values = before(x)
        torch.testing.assert_close(rest(*values), model(x))
        model.mlp[0].weight.zero_()
        torch.testing.assert_close(rest(*values), model(x))
        torch.testing.assert_close(before(x), values)
    assert not any(isinstance(module, nn.MultiheadAttention | Attention) for module in rest.modules())
    assert split_at(stage, [model.before, model.mlp[0]]) is None


class AddedInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x).add_(self.two(x))


def test_a_stage_is_not_split_where_the_rest_changes_what_it_is_given():
    model = AddedInPlace().eval()
    (stage,) = sequential_view(nn.Sequential(OrderedDict(block=model)), "network")
    assert split_at(stage, [model.two]) is None
    assert split_at(stage, [model.one]) is not None  # the sum is in place of what the layer itself gives


def test_the_device_of_the_session_is_taken_and_told(monkeypatch):
    asked = []
    real = coreml_prune_bench.models.pruning.sparse_gpt.prune.prune_stages

    def spy(*arguments, device, **options):
        asked.append(device)
        return real(*arguments, device=CPU, **options)

    monkeypatch.setattr(coreml_prune_bench.models.pruning.sparse_gpt.prune, "prune_stages", spy)
    config = SparseGPTConfig(sparsity=0.5, calibration_samples=8)
    for device in (CPU, torch.device("cpu", 0)):
        task = PruningTask(
            TINY, dense(), SIZE, Noise(8), 0, progress=lambda done, total: None, session=Session(device=device)
        )
        assert prune(config, task).devices == (describe(device),)
    assert asked == [CPU, torch.device("cpu", 0)]
    assert "session" in config.takes


def test_rows_of_a_weight_count_as_inputs_by_a_share_of_what_came_in():
    rows = torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 6.0]])  # their mean: 2, 2
    hessian = 5 * torch.eye(2)
    add_rows(hessian, rows, 0.5)
    # [1, -2], [-1, -2], [0, 4]: squares add up to 26, half of the trace of 10
    assert torch.allclose(hessian, torch.tensor([[5 + 2 * 5 / 26, 0.0], [0.0, 5 + 24 * 5 / 26]]))
    assert float(hessian.trace()) == pytest.approx(15)
    add_rows(hessian, torch.ones(3, 2), 0.5)  # rows that do not differ tell nothing
    assert float(hessian.trace()) == pytest.approx(15)


def test_views_come_after_the_images_as_they_are():
    class Named:
        def __len__(self) -> int:
            return 3

        def images(self, indices, epoch):
            return np.stack([np.full((1, 1, 3), 10 * (epoch or 0) + i, np.uint8) for i in indices])

    found = torch.cat(list(calibration_batches(Named(), 3, 2, views=2)))[:, 0, 0, 0]
    plain = torch.cat(list(calibration_batches(Named(), 3, 2)))[:, 0, 0, 0]
    assert len(found) == 6
    assert torch.equal(found[:3], plain)
    assert torch.allclose(found[3:] - found[:3], torch.full((3,), 10 / 255 / 0.229), atol=1e-6)
