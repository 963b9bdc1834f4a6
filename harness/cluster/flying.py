"""Cells that were sent and have not ended, and for how many more there is room."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distributed import Future

from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.cluster.workers import Seen
from coreml_prune_bench.cluster.workplace import ANE, CPU, GPU

_CELLS_A_WORKER = 2
"""That are sent at a time: the one that it works on, and one more, so that it waits for nobody. So few, so that what
takes longest can go first, and neither the scheduler nor this process grows with the suite."""


@dataclass(frozen=True)
class Flying:
    """A cell that was sent. tasks: their keys, that of its record last, for which the others are done `before`.

    kind: the resource that it needs. built: of one whose images are divided, the task of its own package.
    """

    cell: Cell
    tasks: list[str]
    began_s: float
    kind: str
    before: list[Future]
    built: Future | None

    @property
    def needs(self) -> str:
        """The resource that it needs now: for parts of its images a core will do."""
        return CPU if self.built is not None and self.built.done() else self.kind


class Room:
    """What these workers can take beside what was sent."""

    def __init__(self, workers: Sequence[Seen], sent: Iterable[Flying]) -> None:
        there = Counter(kind for one in workers for kind in one.resources)
        self._most = {kind: _CELLS_A_WORKER * max(1, there[kind]) for kind in (CPU, GPU, ANE)}
        self._taken = Counter(flew.needs for flew in sent)

    def has(self, kind: str) -> bool:
        """Whether one more may go. Of all kinds together, too: packages that a GPU has built wait for cores."""
        return self._taken[kind] < self._most[kind] and self._taken.total() < sum(self._most.values())

    def take(self, kind: str) -> None:
        self._taken[kind] += 1
