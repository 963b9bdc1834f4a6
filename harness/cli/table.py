"""`table`: what the records of a results folder say."""

from itertools import chain
from typing import Annotated, Literal

import typer

from coreml_prune_bench.cli.options import RESULTS, FormatOption, ResultsOption
from coreml_prune_bench.cli.output import show
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.report.accuracy_tables import Kind


def table(
    kind: Annotated[
        Kind | None,
        typer.Option("--kind", help="What the table is about: accuracy if not given; csv and json hold both."),
    ] = None,
    compare: Annotated[
        Literal["published", "formats"] | None,
        typer.Option(
            "--compare",
            help="published: each row beside its counterpart in the published table, with the differences. formats: "
            "each row in both package formats, with the paired difference and how sure it is.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="ALGORITHM",
            help="Each row beside this algorithm's of the same network and sparsity (such as sparse-gpt; dense: beside "
            "the network itself), with the paired difference and how sure it is.",
        ),
    ] = None,
    format: FormatOption = "md",
    results: ResultsOption = RESULTS,
) -> None:
    """Tables from the records of a results folder; nothing is measured."""
    from coreml_prune_bench.core.progress import warn
    from coreml_prune_bench.records.accuracy import read_records
    from coreml_prune_bench.records.chance import chance_levels
    from coreml_prune_bench.records.latest import newest_trials
    from coreml_prune_bench.report.accuracy_tables import render, render_comparison

    if against is not None and (compare or kind):
        raise BenchError("--against is a table of its own: leave out --kind and --compare")
    if compare and kind:
        raise BenchError(f"--compare {compare} is a table of accuracy and size: leave out --kind")
    records = read_records(results)
    for line in chance_levels(chain.from_iterable(newest_trials(records))):
        warn(line)
    if against is not None:
        from coreml_prune_bench.report.paired_tables import render_pairs  # with scipy, which takes a second

        text = render_pairs(records, against, format)
    elif compare == "formats":
        from coreml_prune_bench.report.format_tables import render_formats  # with scipy, too

        text = render_formats(records, format)
    elif compare:
        text = render_comparison(records, format)
    else:
        text = render(records, kind or "accuracy", format)
    show(text)
