"""A results folder against a baseline, or against absolute rules alone."""

from collections.abc import Collection, Sequence
from pathlib import Path

from coreml_prune_bench.core.errors import BenchError, did_you_mean
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
    models: Collection[str] | None = None,
) -> Report:
    """Say of each row of a results folder whether it is better, the same or worse, or that nobody can tell.

    baseline: a baseline file, a results folder, or a git revision; None: rows are held to absolute rules alone.
    rules: a TOML file of what is allowed. require: absolute rules besides, such as "top1 >= 75".
    against_dense: pruned rows against the baseline's dense row of their model. models: the networks whose rows count,
    on both sides; None: all. Raises BenchError of one line.
    """
    book = (read_rules(Path(rules)) if rules else RuleSet()).requiring(require)
    if baseline is None and not book.requires:
        raise BenchError(
            'nothing to hold the run to: give --baseline, or absolute rules, such as --require "top1 >= 75"'
        )
    if baseline is None and against_dense:
        raise BenchError('--against-dense needs --baseline; without one say --require "loss_against_dense <= 1"')
    # Against dense rows no row of the run is missed, nor is one that absolute rules alone hold.
    run = read_results(Path(results), whole=against_dense or book.requires)
    before = None if baseline is None else load_baseline(str(baseline), whole=True)
    if models is not None:
        _check_known(models, run.models | (before.models if before else set()), results)
        run, before = run.of(models), before and before.of(models)
    if before is None:
        return gate(None, run, book)
    report = gate(before, run, book, against_dense=against_dense)
    return with_lost(report, matched_rows(before, run, book, against_dense=against_dense), Path(results))


def _check_known(models: Collection[str], known: Collection[str], results: str | Path) -> None:
    """BenchError where a network has no row: nothing would be held to anything, and the gate pass."""
    if lacking := [name for name in models if name not in known]:
        raise BenchError(
            f"no row of {', '.join(lacking)} in {results} or the baseline, expected some of "
            f"{', '.join(sorted(known))}{did_you_mean(lacking[0], sorted(known))}"
        )
