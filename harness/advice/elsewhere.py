"""The cells of a search on a cluster: each as a suite of its own, which workers lay out, too."""

from pathlib import Path
from typing import TYPE_CHECKING

from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.bench.run import Measure
from coreml_prune_bench.bench.suite import DEFAULT_DATA, Suite
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.core.progress import Reporter

if TYPE_CHECKING:
    from coreml_prune_bench.cluster.run import Elsewhere


def measured_elsewhere(
    there: "Elsewhere", suite: Suite, weights: Path | None, cell: Cell, reporter: Reporter
) -> Measure:
    """What measures one cell of a search over the network of `suite`, which has no configs."""
    alone = suite.model_copy(
        update={
            "name": cell.subject.suite,
            "data": {DEFAULT_DATA: cell.subject.data.spec},
            "configs": (cell.config,) if cell.config else (),
            "package_formats": (cell.package_format.name,),
            "trials": 1,
        }
    )
    choice = SuiteChoice(alone, weights=weights)
    cells = choice.cells(reporter)
    assert cells[-1].key == cell.key, f"{cell.name} is another one in a suite of its own"
    return there.on(choice, cells).measure
