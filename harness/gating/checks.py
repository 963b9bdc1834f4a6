"""What a gate's report is made of: checks, the rows that they are of, and the whole."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coreml_prune_bench.gating.limits import Key, Kind, Metric, Verdict

WORST_FIRST: tuple[Verdict, ...] = ("worse", "missing", "not comparable", "cannot tell", "new", "better", "same")


@dataclass(frozen=True)
class Check:
    """One metric of a row, or one absolute rule (`required`), whose bound stands as the baseline.

    baseline and run are in `unit`; effect, interval and what was detectable in `effect_unit`. effect: the run against
    the baseline; which sign is good depends on the metric. low, high: its interval at confidence 1 - 2 alpha.
    p: of worse or of better, whichever is likelier, corrected for the number of tests (Holm); p_alone: not corrected,
    as the interval is not. detectable: the smallest loss that would have been seen with a power of 80 %. None where
    there was no test; run and effect where nothing is known.
    """

    metric: Metric | str
    verdict: Verdict
    unit: str
    baseline: float
    run: float | None
    effect_unit: str
    effect: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_alone: float | None = None
    detectable: float | None = None
    method: str = "one value a side: no test"
    note: str = ""
    required: bool = False


@dataclass(frozen=True)
class ClassChange:
    """Images of one class that only the baseline gets right, and only the run."""

    name: str
    images: int
    lost: int
    gained: int


@dataclass(frozen=True)
class Lost:
    """Of a row that got worse: images that it has lost, how many it has gained, and the classes of both."""

    images: tuple[str, ...]
    gained: int
    classes: tuple[ClassChange, ...]


@dataclass(frozen=True)
class Row:
    """A row and its verdict, the worst of its checks. reason: why there are none. lost: what a worse one has lost."""

    key: Key
    kind: Kind
    verdict: Verdict
    fails: bool
    checks: tuple[Check, ...] = ()
    reason: str = ""
    lost: Lost | None = None


@dataclass(frozen=True)
class Report:
    """A whole gate. tests: how many were made, for which p-values are corrected."""

    rows: tuple[Row, ...]
    alpha: float
    tests: int

    @property
    def exit_code(self) -> int:
        """0: passed. 1: a row has a verdict that fails. 2: none has, but a row could not be compared."""
        return exit_code_of(self.rows)

    @property
    def counts(self) -> dict[Verdict, int]:
        """Rows by verdict, the worst first."""
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in WORST_FIRST if found[verdict]}


def exit_code_of(rows: Sequence[Row]) -> int:
    """0: passed. 1: a row has a verdict that fails. 2: none has, but a row could not be compared."""
    if any(row.fails for row in rows):
        return 1
    return 2 if any(row.verdict == "not comparable" for row in rows) else 0
