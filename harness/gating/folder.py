"""A results folder against a baseline."""

from pathlib import Path

from coreml_prune_bench.gating.baseline import load_baseline, read_results
from coreml_prune_bench.gating.limits import read_rules
from coreml_prune_bench.gating.verdicts import Report, gate


def gate_folder(
    results: str | Path, baseline: str | Path, *, rules: str | Path | None = None, against_dense: bool = False
) -> Report:
    """Say of each row of a results folder whether it is better, the same or worse, or that nobody can tell.

    baseline: a baseline file, a results folder, or a git revision. rules: a TOML file of what is allowed.
    against_dense: pruned rows against the baseline's dense row of their model. Raises BenchError of one line.
    """
    book = read_rules(Path(rules)) if rules else None
    # Against dense rows, no row of the run is missed.
    run = read_results(Path(results), whole=against_dense)
    return gate(load_baseline(str(baseline), whole=True), run, book, against_dense=against_dense)
