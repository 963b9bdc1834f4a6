"""What an advice says: the goal, what was tried and what the choice loses on images that had no say in it."""

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict

from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.records.hits import right
from coreml_prune_bench.records.schemas import Frozen
from coreml_prune_bench.records.statistics import score_interval

ALPHA = 0.2
"""How likely a config is taken that loses just more than it may; of one side, so that intervals cover 1 - 2 ALPHA."""
INTERVAL = f"{100 * (1 - 2 * ALPHA):g} % interval"


class _Data(Frozen):
    model_config = ConfigDict(allow_inf_nan=True)


class Goal(_Data):
    """max_drop: points of top-1 that may be lost. min_ratio: None for as small as that allows. eight_bits: iOS18 may be
    needed, for packages that are sparse and quantized.
    """

    max_drop: float
    min_ratio: float | None = None
    eight_bits: bool = True


class Difference(_Data):
    """Top-1 beside the dense network's on the same images, in %. drop, and low to high (see ALPHA), in points."""

    images: int
    top1: float
    dense_top1: float
    drop: float
    low: float
    high: float


class Tried(_Data):
    """A package, and what the images to choose by say. ratio: bytes of weight.bin, dense over this one.

    within: whether they show that the drop is within the goal's. latency_ms: of this package on Apple hardware, where
    the results folder has a record of it. front: no other is as small, as accurate and, as far as known, as fast.
    """

    algorithm: str
    title: str
    config: str
    settings: dict[str, Any]
    record: str
    weight_bytes: int
    ratio: float
    selection: Difference
    within: bool
    latency_ms: float | None
    front: bool = False


class Advice(_Data):
    """What was tried, decided and found. chosen: an index of `tried`; None where nothing was within the goal.

    best: what comes closest to the goal then. final: the chosen package, or the best, on the images that judge.
    """

    network: str
    title: str
    data: str
    goal: Goal
    training_images: int
    dense_weight_bytes: int
    tried: tuple[Tried, ...]
    decisions: tuple[str, ...]
    chosen: int | None
    best: int | None
    final: Difference | None

    @property
    def met(self) -> bool:
        """Whether the chosen package is within the goal on images that had no say in the choice."""
        return self.chosen is not None and self.final is not None and self.final.drop <= self.goal.max_drop


def difference(dense: Record, pruned: Record) -> Difference:
    """Two records of the same images: what the second loses, with Tango's interval of a paired difference."""
    assert dense.predictions, "the dense network was measured"
    assert pruned.predictions, "a cell that failed is no package"
    before, after = right(dense.predictions), right(pruned.predictions)
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    low, high = score_interval(lost, gained, len(before), ALPHA)
    return Difference(
        images=len(before),
        top1=100 * float(after.mean()),
        dense_top1=100 * float(before.mean()),
        drop=100 * (lost - gained) / len(before),
        low=-100 * high,
        high=-100 * low,
    )


def is_on_front(one: Tried, all_: Sequence[Tried]) -> bool:
    """Whether none is as good in everything, size, accuracy and a latency that both have, and better in one of it."""

    def beats(other: Tried) -> bool:
        gains = [one.weight_bytes - other.weight_bytes, other.selection.top1 - one.selection.top1]
        if one.latency_ms is not None and other.latency_ms is not None:
            gains.append(one.latency_ms - other.latency_ms)
        return max(gains) > 0 and min(gains) >= 0

    return not any(map(beats, all_))
