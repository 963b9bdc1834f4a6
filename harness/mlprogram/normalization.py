"""What a program itself does to the numbers that it takes, before anything else: does it normalize them?

Followed are operations by constants alone, from the input on. This module must not know what a package is used for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from coreml_prune_bench.mlprogram.program import Operation, Program
from coreml_prune_bench.mlprogram.values import Constant, Reference

_SAME_VALUES = ("cast", "identity", "transpose", "reshape", "expand_dims", "squeeze")
_MOST_ELEMENTS = 64
"""Of a constant that normalizes: one a channel."""
_FARTHEST = 4.0
"""Standard deviations of pixels that their mean may come to lie from 0."""
_LEAST, _MOST = 0.05, 3.0
"""The standard deviations that normalized pixels have."""


class Normalization(NamedTuple):
    """A program's first steps, factor * x + summand, by channel. highest: of what they are made for, 1 or 255."""

    factor: tuple[float, ...]
    summand: tuple[float, ...]
    highest: int

    def makes_normal(self, factor: np.ndarray, summand: np.ndarray) -> bool:
        """Whether factor * pixel + summand, of pixels from 0 to 255, becomes about what networks are trained with."""
        mine, rest = np.array(self.factor), np.array(self.summand)
        try:
            factor, summand = np.broadcast_arrays(mine * factor, mine * summand + rest)
        except ValueError:  # of another number of channels
            return False
        means, deviations = _moments(factor, summand, 255)
        return _is_centred(means, deviations) and bool(deviations.max() <= _MOST)


def normalization_of(program: Program, name: str) -> Normalization | None:
    """How a program normalizes its input `name`; None where it does not, or not visibly."""
    constants = {
        output.name: operation.attributes["val"]
        for operation in program.operations
        if operation.type == "const" and "val" in operation.attributes
        for output in operation.outputs
    }
    factor, summand = np.ones(1), np.zeros(1)
    changed = False
    while True:
        users = [operation for operation in program.operations if name in operation.references()]
        if len(users) != 1 or len(users[0].outputs) != 1:
            break
        (operation,) = users
        if operation.type not in _SAME_VALUES:
            step = _step(program, operation, name, constants)
            if step is None:
                break
            try:
                factor, summand = factor * step[0], summand * step[0] + step[1]
            except ValueError:  # of another number of channels
                break
            changed = True
        name = operation.outputs[0].name
    if not changed:
        return None
    factor, summand = np.broadcast_arrays(factor, summand)
    highest = _made_for(factor, summand)
    return None if highest is None else Normalization(tuple(factor.tolist()), tuple(summand.tolist()), highest)


def _step(
    program: Program, operation: Operation, name: str, constants: Mapping[str, Constant]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor and summand of one operation, float64 [1] or [channels]; None for one that is no such step."""

    def known(parameter: str) -> Any:
        (argument,) = operation.inputs[parameter]
        constant = constants.get(argument.name) if isinstance(argument, Reference) else argument
        if constant is None or np.prod(constant.type.fixed_shape, dtype=np.int64) > _MOST_ELEMENTS:
            raise LookupError(parameter)
        return np.asarray(program.weights.array(constant), np.float64).reshape(-1)

    one, none = np.ones(1), np.zeros(1)
    try:
        if operation.type == "batch_norm":
            gamma = known("gamma") if "gamma" in operation.inputs else one
            beta = known("beta") if "beta" in operation.inputs else none
            factor = gamma / np.sqrt(known("variance") + (known("epsilon") if "epsilon" in operation.inputs else 1e-5))
            return factor, beta - known("mean") * factor
        if operation.type not in ("mul", "add", "sub", "real_div"):
            return None
        first = [getattr(argument, "name", None) for argument in operation.inputs["x"]] == [name]
        other = known("y" if first else "x")
        match operation.type:
            case "mul":
                return other, none
            case "add":
                return one, other
            case "sub":
                return (one, -other) if first else (-one, other)
        return (1 / other, none) if first and other.all() else None
    except LookupError:
        return None


def _made_for(factor: np.ndarray, summand: np.ndarray) -> int | None:
    """255 or 1: the range of pixels whose mean and deviation become such as networks take; None where neither is."""
    fitting = {}
    for highest in (255, 1):
        means, deviations = _moments(factor, summand, highest)
        if _is_centred(means, deviations):
            fitting[highest] = float(deviations.max())
    return min(fitting, key=lambda highest: fitting[highest]) if fitting else None


def _moments(factor: np.ndarray, summand: np.ndarray, highest: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of what becomes of numbers spread evenly from 0 to `highest`."""
    return factor * highest / 2 + summand, np.abs(factor) * highest / np.sqrt(12)


def _is_centred(means: np.ndarray, deviations: np.ndarray) -> bool:
    return bool(deviations.min() >= _LEAST and (np.abs(means) <= _FARTHEST * deviations).all())
