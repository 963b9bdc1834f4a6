"""BatchNorm of a pruned network: what pruning does to a few images, done to what the dense network knows."""

import pytest
import torch
from torch import nn

from coreml_prune_bench.models.batchnorm_statistics import carried_over_batchnorm

KNOWN_MEAN, KNOWN_VARIANCE = torch.tensor([3.0, -1.0]), torch.tensor([4.0, 0.25])


def norm() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(2).eval()
    layer.running_mean.copy_(KNOWN_MEAN)
    layer.running_var.copy_(KNOWN_VARIANCE)
    return layer


def carried_over(dense_images: torch.Tensor, pruned_images: torch.Tensor) -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    dense, pruned = norm(), norm()
    with carried_over_batchnorm(pruned, dense):
        for dense_batch, pruned_batch in zip(dense_images.split(4), pruned_images.split(4), strict=True):
            dense(dense_batch)
            pruned(pruned_batch)
    return dense, pruned


@pytest.fixture
def images() -> torch.Tensor:
    """Few, and unlike those that the dense network knows."""
    return torch.randn(12, 2, 5, 5, generator=torch.Generator().manual_seed(0)) * 0.7 + 0.2


def test_what_did_not_change_keeps_the_statistics_that_the_dense_network_knows(images: torch.Tensor) -> None:
    dense, pruned = carried_over(images, images)
    for layer in (dense, pruned):
        assert torch.allclose(layer.running_mean, KNOWN_MEAN, atol=1e-6)
        assert torch.allclose(layer.running_var, KNOWN_VARIANCE, atol=1e-6)


def test_what_is_scaled_and_shifted_is_normalized_to_what_it_was(images: torch.Tensor) -> None:
    """A channel that pruning makes 0.5 x + 2 of has half the deviation and its mean there, on whatever images."""
    _, pruned = carried_over(images, 0.5 * images + 2)
    assert torch.allclose(pruned.running_mean, 0.5 * KNOWN_MEAN + 2, atol=1e-4)
    assert torch.allclose(pruned.running_var, 0.25 * KNOWN_VARIANCE, atol=1e-4)
    assert torch.allclose(pruned(0.5 * images + 2), norm()(images), atol=1e-3)


def test_a_channel_that_died_gives_numbers(images: torch.Tensor) -> None:
    _, pruned = carried_over(images, torch.zeros_like(images))
    assert torch.isfinite(pruned(torch.zeros_like(images))).all()


def test_the_dense_network_and_its_settings_are_as_before(images: torch.Tensor) -> None:
    dense, pruned = carried_over(images, 2 * images)
    assert torch.equal(dense.running_mean, KNOWN_MEAN)
    assert torch.equal(dense.running_var, KNOWN_VARIANCE)
    assert [layer.momentum for layer in (dense, pruned)] == [0.1, 0.1]
    assert not dense.training
    assert not pruned.training


def test_a_layer_without_statistics_stays_so(images: torch.Tensor) -> None:
    dense, pruned = (nn.BatchNorm2d(2, track_running_stats=False).eval() for _ in range(2))
    with carried_over_batchnorm(pruned, dense):
        dense(images)
        pruned(images)
    assert pruned.running_mean is None
