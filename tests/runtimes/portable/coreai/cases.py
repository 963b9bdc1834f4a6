"""What a torch operation through Apple's converter is tried on: functions of a few small tensors.

The dictionary of each group has a list of tries by the operation's entry in `_aten_to_core_resolver`. Most samples lead
with 1, so that a batch can be tried, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Try:
    """`call` of `inputs`. dynamic: dimensions whose size is open, by input. table: with Apple's decompositions."""

    call: Callable[..., Any]
    inputs: tuple[torch.Tensor, ...]
    dynamic: Any = None
    table: bool = True
    tolerance: float = 2e-5


def real(*shape: int, scale: float = 2.0, seed: int | None = None) -> torch.Tensor:
    """Float32, no two of them alike."""
    generator = torch.Generator().manual_seed(len(shape) * 1000 + sum(shape) if seed is None else seed)
    return torch.randn(shape, generator=generator) * scale


def above(low: float, *shape: int) -> torch.Tensor:
    return real(*shape).abs() + low


def inside(*shape: int) -> torch.Tensor:
    """Between -1 and 1."""
    return torch.tanh(real(*shape))


def whole(*shape: int, low: int = -9, high: int = 9, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(low, high, shape, generator=generator).to(dtype)


def tries(call: Callable[..., Any], *given: torch.Tensor | Sequence[torch.Tensor], **options: Any) -> list[Try]:
    return [Try(call, (g,) if isinstance(g, torch.Tensor) else tuple(g), **options) for g in given]
