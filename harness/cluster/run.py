"""A suite run on a cluster: the way in for commands."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from coreml_prune_bench.accuracy.runtime import Evaluation
from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.bench.run import Measure, Measured, RunOptions
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.cluster.asked import Asked, facts_of
from coreml_prune_bench.cluster.client import HowOnCluster, OnCluster
from coreml_prune_bench.cluster.connect import Where, connected
from coreml_prune_bench.cluster.versions import versions
from coreml_prune_bench.cluster.workplace import Kind
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Steps


def measured_at(
    where: Where, choice: SuiteChoice, cells: Sequence[Cell], evaluation: Evaluation, how: HowOnCluster
) -> Measure:
    """What measures the cells of a suite there. The cluster is looked for when there is something to measure."""
    _ = where.count  # an address that is none is told at once
    if any(cell.published for cell in cells):
        raise BenchError("--cluster: published packages are measured on this machine; leave it out")

    def measure(missing: list[Cell], options: RunOptions, steps: Steps) -> Iterator[Measured]:
        if not missing:
            return
        suite = choice.load()
        loaded = replace(
            choice, suite=suite, data=None, models=None, own=None, algorithms=None, trials=None, package_formats=None
        )
        asked = Asked(loaded, evaluation, versions(), facts_of(cells), len(cells))
        kind: Kind = "gpu" if options.training.device.startswith("cuda") else "cpu"
        with connected(where, kind) as client:
            yield from OnCluster(client, asked, cells, how)(missing, options, steps)

    return measure
