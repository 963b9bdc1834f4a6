"""A network is pruned once, whatever the number of formats that it is saved in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coreml_prune_bench.bench.cells import Cell
    from coreml_prune_bench.models.pruning.task import Pruned


@dataclass
class LastPruned:
    """The network that a run pruned last: a config's packages of all formats are built one after the other."""

    key: str = ""
    pruned: "Pruned | None" = None

    def get(self, cell: "Cell", prune: "Callable[[], Pruned]") -> "Pruned":
        if self.pruned is None or self.key != cell.pruned_key:
            self.pruned = None  # not two at a time
            self.pruned, self.key = prune(), cell.pruned_key
        return self.pruned
