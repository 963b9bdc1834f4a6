"""In which order cells go to a cluster: what takes longest first, so that no worker is left with it in the end.

How long a cell takes is learned from those before it, of the same network and algorithm. Until one of them has ended
they count as the longest, and those that were sent least go first.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from coreml_prune_bench.bench.cells import Cell

Alike = tuple[str, str, str, str | None]
"""What cells that take equally long have in common: their network, algorithm, format and what they wait for."""


@dataclass
class _Line:
    """Cells that are alike, in the suite's order, and what was seen of those that were sent."""

    cells: deque[Cell] = field(default_factory=deque)
    sent: int = 0
    ended: int = 0
    seconds: float = 0.0

    @property
    def rank(self) -> tuple[float, int]:
        """Larger ones go first."""
        return (self.seconds / self.ended if self.ended else float("inf"), -self.sent)


class Waiting:
    """The cells that were not sent yet."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._lines: defaultdict[Alike, _Line] = defaultdict(_Line)
        self._count = 0
        for cell in cells:
            self._lines[_alike(cell)].cells.append(cell)
            self._count += 1

    def __len__(self) -> int:
        return self._count

    @property
    def first(self) -> Iterator[Cell]:
        """One of each kind that still waits, in the suite's order."""
        return (line.cells[0] for line in self._lines.values() if line.cells)

    def take(self, may_go: Callable[[Cell], bool]) -> Cell | None:
        """The next one of those that may go now, if one may; `may_go` says the same of cells that are alike."""
        lines = [line for line in self._lines.values() if line.cells and may_go(line.cells[0])]
        if not lines:
            return None
        line = max(lines, key=lambda line: line.rank)
        line.sent += 1
        self._count -= 1
        return line.cells.popleft()

    def took(self, cell: Cell, seconds: float) -> None:
        """A cell has ended after so long."""
        line = self._lines[_alike(cell)]
        line.ended += 1
        line.seconds += seconds


def _alike(cell: Cell) -> Alike:
    allocation = cell.config.allocation if cell.config else None
    return (cell.subject.network.name, cell.algorithm, cell.package_format.name, allocation)
