"""How much a package may make us do: a constant, and so much for each byte that it has.

A program can ask for more than stands in it: a constant that is filled, tiled or decompressed, one that a hundred
operations share, a loop that is written anew for every size that it changes. Whoever reads, inspects or translates it
takes what that costs from a budget before doing it, so that time and memory follow the size of what was given.
"""

from __future__ import annotations

from dataclasses import dataclass

from coreml_prune_bench.mlprogram.weights import Weights

FREE_BYTES = 256 << 20
BYTES_PER_BYTE = 96
"""A weight of one bit an element takes 48, decompressed to Float16 and made Float32; some have half a bit."""

FREE_STEPS = 100_000
"""Each some tenth of a millisecond: an operation read, a node written. Of an intact program a few thousand are usual,
of a large language model's some ten thousand."""
BYTES_A_STEP = 10_000


class OverBudgetError(Exception):
    """What was asked for is more than the budget has. Never leaves who works with a budget."""


@dataclass
class Budget:
    """What is left: bytes of arrays that are made, and steps."""

    bytes: int
    steps: int

    @classmethod
    def of(cls, weights: Weights) -> Budget:
        """For one reading or one translation of the package that has these weights."""
        size = weights.package_bytes()
        return cls(FREE_BYTES + BYTES_PER_BYTE * size, FREE_STEPS + size // BYTES_A_STEP)

    def take_bytes(self, count: int) -> None:
        """Raises OverBudgetError where an array of so many bytes is not to be made."""
        if count > self.bytes:
            raise OverBudgetError(
                f"it asks for {_size(count)} of constants, {_size(self.bytes)} are left of what a package of this size "
                f"may take ({FREE_BYTES >> 20} MiB and {BYTES_PER_BYTE} bytes for each of its own)"
            )
        self.bytes -= count

    def take_steps(self, count: int = 1) -> None:
        """Raises OverBudgetError where that work is not to be done."""
        if count > self.steps:
            raise OverBudgetError(
                f"the program takes more steps than one of this size may take ({FREE_STEPS:,}, and one for each "
                f"{BYTES_A_STEP:,} bytes)"
            )
        self.steps -= count


def _size(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MiB"
