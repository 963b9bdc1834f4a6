"""A results folder against a baseline, or against absolute rules alone."""

from collections.abc import Sequence
from pathlib import Path

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.gating.baseline import load_baseline, read_results
from coreml_prune_bench.gating.checks import Report
from coreml_prune_bench.gating.limits import RuleSet, read_rules
from coreml_prune_bench.gating.lost import with_lost
from coreml_prune_bench.gating.pairs import matched_rows
from coreml_prune_bench.gating.verdicts import gate


def gate_folder(
    results: str | Path,
    baseline: str | Path | None = None,
    *,
    rules: str | Path | None = None,
    require: Sequence[str] = (),
    against_dense: bool = False,
) -> Report:
    """Say of each row of a results folder whether it is better, the same or worse, or that nobody can tell.

    baseline: a baseline file, a results folder, or a git revision; None: rows are held to absolute rules alone.
    rules: a TOML file of what is allowed. require: absolute rules besides, such as "top1 >= 75".
    against_dense: pruned rows against the baseline's dense row of their model. Raises BenchError of one line.
    """
    book = (read_rules(Path(rules)) if rules else RuleSet()).requiring(require)
    if baseline is None and not book.requires:
        raise BenchError(
            'nothing to hold the run to: give --baseline, or absolute rules, such as --require "top1 >= 75"'
        )
    if baseline is None and against_dense:
        raise BenchError('--against-dense needs --baseline; without one say --require "loss_against_dense <= 1"')
    # Against dense rows, no row of the run is missed.
    run = read_results(Path(results), whole=against_dense)
    if baseline is None:
        return gate(None, run, book)
    before = load_baseline(str(baseline), whole=True)
    report = gate(before, run, book, against_dense=against_dense)
    return with_lost(report, matched_rows(before, run, book, against_dense=against_dense), Path(results))
