"""How weights and activations lie in memory, and networks whose code does not take every way."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coreml_prune_bench.models import layout
from coreml_prune_bench.models.config import Scope, TrainingConfig
from coreml_prune_bench.models.devices import CPU
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.blockwise_reconstruction.config import ReconstructionConfig
from coreml_prune_bench.models.pruning.sensitivity import layer_effects
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.training import normalize, train

SIZE, CLASSES = 16, 4


class Viewed(nn.Module):
    """Ends as many networks do, with `view`, which takes no channels last; of a parameter too."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.scale = nn.Parameter(torch.ones(1, 8, 8, 8))
        self.head = nn.Linear(8 * 8 * 8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        activations = self.features(images)
        return self.head(activations.view(activations.size(0), -1) * self.scale.view(1, -1))


class Images:
    def __len__(self) -> int:
        return 32

    def images(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        draw = np.random.default_rng(0)
        return draw.integers(0, 256, (32, SIZE, SIZE, 3), dtype=np.uint8)[indices]

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return indices % CLASSES


VIEWED = Network("viewed", "Viewed", lambda classes: Viewed(), None, Scope())


def viewed() -> nn.Module:
    torch.manual_seed(0)
    return Viewed().eval()


@pytest.mark.parametrize(
    ("device", "has_onednn", "expected"),
    [
        ("cpu", True, torch.channels_last),
        ("cpu", False, torch.contiguous_format),
        ("cuda", False, torch.channels_last),
        ("mps", True, torch.contiguous_format),
    ],
)
def test_activations_lie_as_the_devices_kernels_are_fastest(device, has_onednn, expected, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)
    assert layout._fastest(torch.device(device)) == expected


def test_a_network_comes_back_from_its_device_as_it_was(monkeypatch):
    monkeypatch.setattr(layout, "_fastest", lambda device: torch.channels_last)
    model = nn.Conv2d(3, 8, 3)
    weight, before = model.weight, model.weight.detach().clone()
    assert layout.to_device(model, CPU, SIZE) == torch.channels_last
    assert not model.weight.is_contiguous()
    layout.back_from_device(model)
    assert model.weight is weight
    assert weight.is_contiguous()
    assert torch.equal(weight, before)


def test_looking_whether_a_network_bears_it_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(layout, "_fastest", lambda device: torch.channels_last)
    model = viewed().train()
    before, random = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    assert layout.to_device(model, CPU, SIZE) == torch.contiguous_format
    assert model.scale.is_contiguous()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_network_that_takes_no_channels_last_is_trained_and_pruned_by_every_algorithm(monkeypatch):
    monkeypatch.setattr(layout, "_fastest", lambda device: torch.channels_last)
    trained = viewed()
    before = trained.features[0].weight.detach().clone()
    train(trained, Images(), TrainingConfig(epochs=1, batch_size=8, learning_rate=0.1), order_seed=0)
    assert not torch.equal(trained.features[0].weight, before)
    for config in (
        SparseGPTConfig(sparsity=0.5, calibration_samples=8, batchnorm_samples=8),
        ReconstructionConfig(sparsity=0.5, calibration_samples=8, held_back_samples=2, steps=2, views=1),
    ):
        pruned = prune(config, PruningTask(VIEWED, viewed(), SIZE, Images(), 0, progress=lambda done, total: None))
        assert float((pruned.model.head.weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    batch = normalize(Images().images(np.arange(8), None))
    effects = list(layer_effects(VIEWED, viewed(), [batch], torch.arange(8) % CLASSES, [0.5]))
    assert [effect.layer for effect in effects] == ["features.0", "head"]
