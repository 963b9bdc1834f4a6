"""What pruning one layer alone does, against torch's own pruning and divergence on the whole network."""

import math
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from coreml_prune_bench.core.errors import CellFailedError
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning.post_training.prune import break_ties
from coreml_prune_bench.models.pruning.sensitivity import dense_classes, layer_effects
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.models.weights import untrained_model
from tests.latency.noise import Noise
from tests.tiny_network import TINY

LEVELS = (0.5, 0.9)


@pytest.fixture(scope="module")
def images():
    noise = Noise(24)
    everything = np.arange(24)
    return normalize(noise.images(everything, None)), torch.from_numpy(noise.labels(everything))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return untrained_model(TINY, 4).eval()


def with_batchnorm_in_training(model: nn.Module) -> nn.Module:
    """A copy, which is free to remember what passes it."""
    copy = deepcopy(model)
    for module in copy.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    return copy


def by_torch(model: nn.Module, layer: str, level: float, batches: Sequence[torch.Tensor], labels: torch.Tensor):
    other, dense_model = with_batchnorm_in_training(model), with_batchnorm_in_training(model)
    weight = other.get_submodule(layer).weight
    magnitudes = np.abs(weight.detach().numpy().astype(np.float16)).ravel()
    mask = np.ones(len(magnitudes), np.float32)
    mask[np.argsort(magnitudes, kind="stable")[: math.ceil(level * len(magnitudes))]] = 0
    prune.custom_from_mask(other.get_submodule(layer), "weight", torch.from_numpy(mask).reshape(weight.shape))
    with torch.no_grad():
        outputs, dense = (torch.cat([m(batch) for batch in batches]) for m in (other, dense_model))
    divergence = functional.kl_div(
        functional.log_softmax(outputs, 1), functional.log_softmax(dense, 1), reduction="batchmean", log_target=True
    )
    return float(divergence), float((outputs.argmax(1) == labels).float().mean())


def test_every_layer_is_measured_as_if_the_whole_network_had_run(model, images):
    before = deepcopy(model.state_dict())
    batches = images[0].split(10)
    found = list(layer_effects(TINY, model, batches, images[1], LEVELS))
    assert [(one.layer, one.elements) for one in found] == [
        ("features.0", 432),
        ("features.3", 144),
        ("features.6", 4608),
        ("classifier", 512),
    ]
    for one in found:
        for level, effect in zip(LEVELS, one.effects, strict=True):
            divergence, top1 = by_torch(model, one.layer, level, batches, images[1])
            assert effect.sparsity == level
            assert effect.divergence == pytest.approx(divergence, rel=1e-3, abs=1e-7)
            assert effect.top1 == pytest.approx(top1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(images[0]), model.eval()(images[0]))  # and runs as it did


def test_the_dense_network_s_own_classes(model, images):
    own = with_batchnorm_in_training(model)
    expected = torch.cat([own(batch).argmax(1) for batch in images[0].split(7)])
    assert torch.equal(dense_classes(model, images[0].split(7)), expected)


def test_what_batchnorm_makes_up_for_costs_nothing(images):
    # Of grey images the first layer sees the same three times. Without the smallest third of its weights, those of one
    # channel, its output is 2/3 of what it was.
    model = untrained_model(TINY, 4).eval()
    with torch.no_grad():
        weight = model.get_submodule("features.0").weight
        weight.copy_(weight[:, :1].sign() * torch.tensor([0.999, 1.0, 1.001]).view(1, 3, 1, 1))
    grey = images[0][:, :1].expand(-1, 3, -1, -1)
    first = next(layer_effects(TINY, model, [grey], images[1], [1 / 3]))
    assert first.effects[0].divergence < 1e-6
    assert by_torch(model, "features.6", 1 / 3, [grey], images[1])[0] > 1e-4


def test_known_layers_are_not_measured_again(model, images):
    told = []
    found = layer_effects(
        TINY, model, [images[0]], images[1], LEVELS, known={"features.0", "features.6"},
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [one.layer for one in found] == ["features.3", "classifier"]
    assert told[-1] == (8, 8)


def test_a_network_without_stages_gives_the_same(model, images):
    class WithoutStages(Network):
        def sequential(self, model):
            raise CellFailedError("it cannot be traced")

    whole = WithoutStages(**{name: getattr(TINY, name) for name in ("name", "title", "build", "head", "scope")})
    expected = list(layer_effects(TINY, model, [images[0]], images[1], LEVELS))
    found = list(layer_effects(whole, model, [images[0]], images[1], LEVELS))
    for one, other in zip(found, expected, strict=True):
        assert one.layer == other.layer
        assert [e.divergence for e in one.effects] == pytest.approx([e.divergence for e in other.effects], abs=1e-6)


def test_outputs_that_are_no_numbers_are_infinitely_far(model, images):
    first = next(layer_effects(TINY, model, [images[0] * float("inf")], images[1], LEVELS))
    assert [effect.divergence for effect in first.effects] == [float("inf")] * 2


class Joined(nn.Module):
    """Branches of one block, joined in place."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.two = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.shortcut = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.two(self.one(x)).add_(self.shortcut(x))
        return self.last(functional.relu(y, inplace=True))


def plainly(model: nn.Module, layer: str, level: float, batches: Sequence[torch.Tensor]) -> float:
    """The divergence, by the whole network, one level at a time, in torch's own layout."""
    pruned = with_batchnorm_in_training(model)
    break_ties(pruned.get_submodule(layer).weight.data, level)
    with torch.no_grad():
        outputs, expected = (
            torch.cat([one(batch) for batch in batches]).log_softmax(1)
            for one in (pruned, with_batchnorm_in_training(model))
        )
    return float(functional.kl_div(outputs, expected, reduction="batchmean", log_target=True))


def test_what_is_shared_by_levels_changes_nothing(images):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True), Joined(), Joined(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval().double()  # fmt: skip
    network = Network(**{name: getattr(TINY, name) for name in ("name", "title", "build", "head", "scope")})
    batches = images[0].double().split(10)
    found = list(layer_effects(network, model, batches, images[1], (0.9, 0.5, 0.75)))
    assert len(found) == 10
    for one in found:
        assert [effect.sparsity for effect in one.effects] == [0.5, 0.75, 0.9]
        for effect in one.effects:
            expected = plainly(model, one.layer, effect.sparsity, batches)
            assert effect.divergence == pytest.approx(expected, rel=1e-9)
