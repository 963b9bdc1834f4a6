"""Learning rate and momentum at each step, as functions of the step alone: a resumed training needs no other state."""

import math

from coreml_prune_bench.models.config import TrainingConfig

# One-cycle as torch.optim.lr_scheduler.OneCycleLR has it by default, which it equals bit for bit.
_RISE = 0.3
_START_DIVISOR = 25.0
_END_DIVISOR = 1e4
_MOMENTUM_SWING = 0.05


def rate_and_momentum(config: TrainingConfig, step: int, total: int) -> tuple[float, float]:
    """For the optimizer step number `step`, counted from 0, of `total`."""
    if config.schedule == "one-cycle":
        return _one_cycle(config, step, total)
    rate = config.learning_rate
    warmup = round(config.warmup_share * total)
    if step < warmup:
        return rate * (step + 1) / warmup, config.momentum
    if config.schedule == "cosine":
        rate = _cosine(rate, 0.0, (step - warmup) / (total - warmup))
    return rate, config.momentum


def _one_cycle(config: TrainingConfig, step: int, total: int) -> tuple[float, float]:
    highest = config.learning_rate
    start = highest / _START_DIVISOR
    end = start / _END_DIVISOR
    # Rounded, so that 0.9 runs from 0.95 to 0.85 exactly.
    low, high = (round(config.momentum + swing, 10) for swing in (-_MOMENTUM_SWING, _MOMENTUM_SWING))
    if config.momentum == 0:
        low = high = 0.0
    peak = _RISE * total - 1
    if step <= peak:
        position = step / peak
        return _cosine(start, highest, position), _cosine(high, low, position)
    position = (step - peak) / (total - 1 - peak)
    return _cosine(highest, end, position), _cosine(low, high, position)


def _cosine(start: float, end: float, position: float) -> float:
    """From `start` to `end` as position goes from 0 to 1."""
    return end + (start - end) / 2 * (math.cos(math.pi * position) + 1)
