"""What commands do on a cluster: the way in.

A cluster makes what is missing in the store, or measures it; then the command goes on as without, and finds it there.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from distributed import Client

from coreml_prune_bench.accuracy.runtime import PORTABLE, Evaluation
from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.bench.run import Measured, RunOptions
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.cluster.asked import Asked, facts_of
from coreml_prune_bench.cluster.client import HowOnCluster, OnCluster
from coreml_prune_bench.cluster.connect import Where, connected
from coreml_prune_bench.cluster.tasks import Levels
from coreml_prune_bench.cluster.versions import versions
from coreml_prune_bench.cluster.workplace import Kind
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Steps


class Elsewhere:
    """A cluster, for one command: it is looked for when there is something to do, and left with this."""

    def __init__(self, where: Where, how: HowOnCluster, device: str, results: Path) -> None:
        """device, results: as the options. Processes of this machine have a GPU where one is asked for."""
        _ = where.count  # an address that is none is told at once
        self._where = where
        self._how = how
        self._device = device
        self._kept = results / "artifacts" / ".cluster"
        self._stack = ExitStack()
        self._client: Client | None = None

    def __enter__(self) -> "Elsewhere":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def on(self, choice: SuiteChoice, cells: Sequence[Cell], evaluation: Evaluation = PORTABLE) -> "OnSuite":
        """For the cells of a suite. Raises BenchError for published packages."""
        if any(cell.published for cell in cells):
            raise BenchError("--cluster: published packages are measured on this machine; leave it out")
        return OnSuite(self, choice, cells, evaluation)

    def work_on(
        self, choice: SuiteChoice, cells: Sequence[Cell], evaluation: Evaluation, levels: Levels | None
    ) -> OnCluster:
        if self._client is None:
            kind: Kind = "gpu" if self._device.startswith("cuda") else "cpu"
            self._client = self._stack.enter_context(connected(self._where, kind, self._kept))
        loaded = replace(
            choice,
            suite=choice.load(),
            data=None,
            models=None,
            own=None,
            algorithms=None,
            trials=None,
            package_formats=None,
        )
        asked = Asked(loaded, evaluation, versions(), facts_of(cells), len(cells))
        return OnCluster(self._client, asked, cells, self._how, levels)


class OnSuite:
    """The cells of one suite there."""

    def __init__(
        self, elsewhere: Elsewhere, choice: SuiteChoice, cells: Sequence[Cell], evaluation: Evaluation
    ) -> None:
        self._elsewhere = elsewhere
        self._choice = choice
        self._cells = cells
        self._evaluation = evaluation

    def measure(self, missing: list[Cell], options: RunOptions, steps: Steps) -> Iterator[Measured]:
        """As `Measure` has it."""
        if missing:
            yield from self._worker(None)(missing, options, steps)

    def build(self, missing: list[Cell], options: RunOptions, steps: Steps) -> Iterator[tuple[Cell, Exception | None]]:
        """Have packages built, as `Build` has it."""
        if missing:
            yield from self._worker(None).make("package", missing, options, steps)

    def sensitivity(self, levels: Levels, options: RunOptions, steps: Steps) -> None:
        """Have the sensitivities of the first cell's network measured. Raises what is in the way of it."""
        for _, error in self._worker(levels).make("sensitivity", [self._cells[0]], options, steps):
            if error is not None:
                raise error

    def _worker(self, levels: Levels | None) -> OnCluster:
        return self._elsewhere.work_on(self._choice, self._cells, self._evaluation, levels)
