"""Adaptive gradient clipping: values by hand, and what it is for."""

import numpy as np
import pytest
import torch
from torch import nn

from coreml_prune_bench.models.config import TrainingConfig
from coreml_prune_bench.models.gradient_clipping import shorten
from coreml_prune_bench.models.training import Session, train


def parameter(values: list, gradient: list) -> nn.Parameter:
    made = nn.Parameter(torch.tensor(values))
    made.grad = torch.tensor(gradient)
    return made


def test_each_row_is_shortened_to_its_share_and_keeps_its_direction():
    weight = parameter([[3.0, 4.0], [0.3, 0.4]], [[6.0, 8.0], [0.006, 0.008]])
    shorten([weight], 0.1)  # rows of length 5 and 0.5: gradients of at most 0.5 and 0.05
    assert torch.allclose(weight.grad, torch.tensor([[0.3, 0.4], [0.006, 0.008]]))


def test_a_filter_counts_as_a_whole_and_so_does_a_vector():
    kernel = parameter([[[[2.0, 0.0], [0.0, 0.0]]]], [[[[0.0, 0.0], [0.0, 8.0]]]])
    bias = parameter([3.0, 4.0], [0.0, 10.0])
    shorten([kernel, bias], 0.5)
    assert torch.allclose(kernel.grad, torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]]))
    assert torch.allclose(bias.grad, torch.tensor([0.0, 2.5]))


def test_what_is_zero_begins_to_move_and_what_has_no_gradient_stays():
    fresh, silent = parameter([0.0], [7.0]), nn.Parameter(torch.ones(1))
    still = parameter([[1.0]], [[0.0]])
    shorten([fresh, silent, still], 0.5)
    assert fresh.grad.item() == pytest.approx(0.5 * 1e-3)
    assert silent.grad is None
    assert still.grad.item() == 0


class Stripes:
    """Images of two classes: brighter on the left, brighter on the right."""

    def __len__(self) -> int:
        return 64

    def images(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        made = np.random.default_rng(7).integers(0, 180, (64, 8, 8, 3))
        for index in range(64):
            made[index, :, slice(0, 4) if index % 2 else slice(4, 8)] += 60
        return made.astype(np.uint8)[indices]

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return (indices % 2).astype(np.int64)


def folded(length: float) -> nn.Module:
    """What a network computes whose filters are `length` times as long, BatchNorm behind them: the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    with torch.no_grad():
        model[0].weight.mul_(length)
    return model


def moved_by(length: float, share: float | None) -> float:
    """The angle in degrees by which training turns the filters."""
    model = folded(length)
    before = model[0].weight.detach().clone()
    config = TrainingConfig(epochs=2, batch_size=16, learning_rate=0.05, weight_decay=0, adaptive_clipping=share)
    train(model, Stripes(), config, order_seed=0, session=Session())
    alike = nn.functional.cosine_similarity(before.flatten(), model[0].weight.detach().flatten(), dim=0)
    return float(torch.rad2deg(torch.arccos(alike.clamp(-1, 1))))


def test_short_filters_are_not_thrown_away():
    """BatchNorm makes a filter's length no part of the function; of the steps it is one, by its square."""
    whole, short = moved_by(1.0, 0.02), moved_by(0.03, 0.02)
    assert short == pytest.approx(whole, rel=0.3)
    assert moved_by(0.03, None) > 20 * short
