"""`report`: one page of everything that the records say, or its charts alone."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from coreml_prune_bench.cli.options import RESULTS, ResultsOption
from coreml_prune_bench.cli.output import show


def report(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, such as report.html.")],
    format: Annotated[
        Literal["html", "png", "svg"] | None,
        typer.Option(
            "--format", help="html: the page. png, svg: its charts alone.  [as the name of OUT ends, or html]"
        ),
    ] = None,
    results: ResultsOption = RESULTS,
    history: Annotated[
        str | None,
        typer.Option(
            "--history",
            metavar="DIR|REV:PATH",
            help="A page of the same rows over commits, in place of --results: of a results folder whose records name "
            "several commits, or of what git has at each commit of a revision or a range: REV for its "
            "results/baseline.json, REV:PATH for another baseline file or a folder of records.  [none]",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """One self-contained page of a results folder: charts, sortable tables, layers, and how to reproduce each row.

    For example: `report out.html --results results/local`; its charts alone: `report charts.svg`, or .png; over
    commits: `report history.html --history main`

    The page needs no network. Nothing is measured.
    """
    named: dict[str, Literal["html", "png", "svg"]] = {".png": "png", ".svg": "svg"}
    wanted: Literal["html", "png", "svg"] = format or named.get(out.suffix.lower(), "html")
    if history is not None:
        from coreml_prune_bench.core.errors import BenchError
        from coreml_prune_bench.gating.history import write_history

        if wanted != "html":
            raise BenchError(f"--history writes a page, no {wanted}: give OUT a name such as history.html, no --format")
        write_history(history, out, force=force)
        show(out)
        return
    from coreml_prune_bench.bench.suite import shipped_suites
    from coreml_prune_bench.core.progress import say
    from coreml_prune_bench.report.drawn import can_draw
    from coreml_prune_bench.report.page import write_report

    if wanted == "html" and not can_draw():
        say("no charts: pip install 'coreml-prune-bench[charts]' brings what draws them")
    write_report(results, out, wanted, shipped_suites=shipped_suites(), force=force)
    show(out)
