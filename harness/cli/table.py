"""`table`: what the records of a results folder say."""

from itertools import chain
from typing import Annotated, Literal

import typer

from coreml_prune_bench.cli.options import RESULTS, FormatOption, JsonOption, ResultsOption, WideOption
from coreml_prune_bench.cli.output import show, terminal_width
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.report.accuracy_tables import Kind


def table(
    kind: Annotated[
        Kind | None,
        typer.Option("--kind", help="What the table is about: csv and json hold both.  [accuracy]"),
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
            metavar="ALGORITHM|CONFIG",
            help="Each row beside this algorithm's of the same network and sparsity (such as sparse-gpt; dense: beside "
            "the network itself), or beside this config's of its own algorithm, with the paired difference and how "
            "sure it is.",
        ),
    ] = None,
    wide: WideOption = False,
    format: FormatOption = "md",
    as_json: JsonOption = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Tables from the records of a results folder; nothing is measured.

    For example: `table --results results/local --against dense`

    On a terminal tables fit its width, that of accuracies with what one asks first; `--wide` has every column, as what
    is piped has.
    """
    from coreml_prune_bench.core.progress import warn
    from coreml_prune_bench.records.accuracy import read_records
    from coreml_prune_bench.records.chance import chance_levels
    from coreml_prune_bench.records.latest import left_out, newest_trials
    from coreml_prune_bench.report.accuracy_tables import render, render_comparison

    format = "json" if as_json else format
    width = terminal_width() if format == "md" and not wide else None
    if against is not None and (compare or kind):
        raise BenchError("--against is a table of its own: leave out --kind and --compare")
    if compare and kind:
        raise BenchError(f"--compare {compare} is a table of accuracy and size: leave out --kind")
    records = read_records(results)
    for line in [*chance_levels(chain.from_iterable(newest_trials(records))), *left_out(records)]:
        warn(line)
    if against is not None:
        from coreml_prune_bench.report.paired_tables import render_pairs  # with scipy, which takes a second

        text = render_pairs(records, against, format, width=width)
    elif compare == "formats":
        from coreml_prune_bench.records.latency import read_latency_records
        from coreml_prune_bench.report.format_tables import render_formats  # with scipy, too

        text = render_formats(records, read_latency_records(results), format, width=width)
    elif compare:
        text = render_comparison(records, format, width=width)
    elif kind is None and width:
        from coreml_prune_bench.report.compact import render_compact

        text = render_compact(records, width)
    else:
        text = render(records, kind or "accuracy", format, width=width)
    show(text)
