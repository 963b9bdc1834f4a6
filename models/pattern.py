"""How the zeros of a pruned layer stand: the groups of weights behind n:m, blocks, channels and kernels.

One definition for what is pruned by it and for what is checked in the saved package. It imports no torch.
"""

import math
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

_WORDS = {"output": "output channels", "input": "input channels", "row": "inputs, kernel positions among them,"}


class Pattern(BaseModel):
    """A weight [C_out, C_in, kH, kW] or [C_out, C_in] in groups. Of each, `zeros` weights are zero, or all or none.

    along: what a group is. "output" and "input": `size` neighbours along the first and second dimension, at the same
    place of the others. "row": `size` neighbours of [C_in, kH, kW] in the order of memory. "channel": all weights of an
    output channel. "kernel": the [kH, kW] of an output and an input channel.
    size: weights in a group, 0 where its kind says it. zeros: of each group, for n:m; None for all or none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    along: Literal["output", "input", "row", "channel", "kernel"]
    size: int = 0
    zeros: int | None = None

    def grouped(self, weight: np.ndarray) -> np.ndarray:
        """[groups, weights in a group]; what a last, incomplete group lacks is filled with zeros."""
        match self.along:
            case "channel":
                return weight.reshape(len(weight), -1)
            case "kernel":
                return weight.reshape(weight.shape[0] * weight.shape[1], -1)
            case "row":
                lines = weight.reshape(len(weight), -1)
            case "output":
                lines = np.moveaxis(weight, 0, -1)
            case "input":
                lines = np.moveaxis(weight, 1, -1)
        lacking = -lines.shape[-1] % self.size
        padded = np.pad(lines, [(0, 0)] * (lines.ndim - 1) + [(0, lacking)])
        return padded.reshape(-1, self.size)

    def group_size(self, shape: tuple[int, ...]) -> int:
        """How many weights a group has, in a weight of this shape."""
        return self.size or math.prod(shape[1 if self.along == "channel" else 2 :])

    def problem(self, shape: tuple[int, ...]) -> str | None:
        """Why a weight of this shape cannot be pruned so; None where it can."""
        if self.along in ("channel", "kernel"):
            return f"a linear layer has no {self.along}s" if len(shape) == 2 else None
        length = {"output": shape[0], "input": shape[1], "row": math.prod(shape[1:])}[self.along]
        if self.zeros is not None and length % self.size:
            return f"its {length} {_WORDS[self.along]} are no multiple of {self.size}"
        if self.zeros is None and 2 * self.size > length:
            return f"its {length} {_WORDS[self.along]} are not two blocks of {self.size}"
        return None


def smallest(weight: np.ndarray, pattern: Pattern, sparsity: float | None) -> np.ndarray:
    """Positions in the flattened weight that magnitude pruning with `pattern` zeroes, int64; of equals, the first ones.

    The rule of `coremltools.optimize.coreml.OpMagnitudePrunerConfig`: of each n:m group the n smallest magnitudes; else
    the groups of the smallest L2 norm, until ceil(sparsity x weights) of them are zero. sparsity: unused for n:m.
    """
    groups = pattern.grouped(np.abs(weight.astype(np.float32)))
    places = pattern.grouped(np.arange(1, weight.size + 1).reshape(weight.shape))  # 0 where a group is filled up
    if pattern.zeros is not None:
        chosen = np.take_along_axis(places, np.argsort(groups, axis=1, kind="stable")[:, : pattern.zeros], axis=1)
    else:
        assert sparsity is not None, "all-or-none groups are pruned to a sparsity"
        order = np.argsort(np.linalg.norm(groups, axis=1), kind="stable")
        reached = np.cumsum((places[order] > 0).sum(axis=1))
        chosen = places[order[: 1 + int(np.searchsorted(reached, math.ceil(sparsity * weight.size)))]]
    return np.asarray(chosen[chosen > 0] - 1)


def misfit(kept: np.ndarray, pattern: Pattern, zeros_allowed: int) -> str | None:
    """What is wrong with the pattern of a weight, from where it is not zero (bool, its shape); None if nothing is.

    zeros_allowed: how many zeros may stand in groups that are not zero as a whole, where it is all or none.
    """
    groups = pattern.grouped(kept)
    if pattern.zeros is not None:
        bad = int(((pattern.size - groups.sum(axis=1)) < pattern.zeros).sum())
        what = f"fewer than {pattern.zeros} zeros"
        return f"{bad:,} of its {len(groups):,} groups of {pattern.size} have {what}" if bad else None
    partly = groups.any(axis=1)
    real = pattern.grouped(np.ones(kept.shape, bool))
    stray = int((real[partly] & ~groups[partly]).sum())
    return f"{stray:,} zeros stand in groups that are not zero as a whole" if stray > zeros_allowed else None
