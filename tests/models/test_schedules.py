"""Learning-rate schedules, held to torch's own."""

import pytest
import torch
from pydantic import ValidationError

from coreml_prune_bench.models.config import TrainingConfig
from coreml_prune_bench.models.schedules import rate_and_momentum


def ours(total: int, **config) -> list[tuple[float, float]]:
    settings = TrainingConfig(epochs=1, **config)
    return [rate_and_momentum(settings, step, total) for step in range(total)]


def torchs(total: int, rate: float, make) -> list[tuple[float, float]]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate, momentum=0.9)
    schedule = make(optimizer)
    found = []
    for _ in range(total):
        (group,) = optimizer.param_groups
        found.append((group["lr"], group["momentum"]))
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("total", [1, 2, 3, 10, 63, 1001])
def test_one_cycle_is_torchs_to_the_last_bit(total):
    expected = torchs(total, 0.07, lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.07, total_steps=total))
    assert ours(total, learning_rate=0.07) == expected


def test_cosine_with_warmup_is_torchs():
    schedulers = torch.optim.lr_scheduler

    def make(optimizer):
        warmup = schedulers.LinearLR(optimizer, start_factor=1 / 20, total_iters=19)
        decay = schedulers.CosineAnnealingLR(optimizer, T_max=80)
        return schedulers.SequentialLR(optimizer, [warmup, decay], milestones=[20])

    found = ours(100, schedule="cosine", learning_rate=0.5, warmup_share=0.2)
    assert [rate for rate, _ in found] == pytest.approx([rate for rate, _ in torchs(100, 0.5, make)], rel=1e-6)
    assert {momentum for _, momentum in found} == {0.9}


def test_constant_is_constant_after_its_warmup():
    found = ours(10, schedule="constant", learning_rate=0.5, warmup_share=0.2, momentum=0.8)
    assert found == [(0.25, 0.8)] + [(0.5, 0.8)] * 9


def test_one_cycle_without_momentum_has_none():
    assert {momentum for _, momentum in ours(10, momentum=0.0)} == {0.0}


@pytest.mark.parametrize("config", [{"warmup_share": 0.1}, {"momentum": 0.97}, {"momentum": 0.01}])
def test_what_one_cycle_cannot_have_is_refused(config):
    with pytest.raises(ValidationError, match="one-cycle"):
        TrainingConfig(epochs=1, **config)
    assert TrainingConfig(epochs=1, schedule="cosine", **config)
