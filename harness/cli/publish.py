"""`publish`: results to where people keep them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from coreml_prune_bench.cli.options import RESULTS, ResultsOption
from coreml_prune_bench.cli.output import show, show_line
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.extras import extras_named
from coreml_prune_bench.core.progress import say


def publish(
    to: Annotated[
        Literal["mlflow", "wandb", "hub-card", "csv"],
        typer.Option(
            "--to",
            help="mlflow: a run a record on a tracking server. wandb: offline runs, for `wandb sync`. hub-card: a "
            "row's model card for the Hugging Face hub. csv: every row.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="PATH", help="wandb: the folder; hub-card, csv: the file.  [., README.md, shown]"
        ),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option("--tracking-uri", metavar="URI", help="MLflow's server or store.  [MLFLOW_TRACKING_URI]"),
    ] = None,
    row: Annotated[
        str | None,
        typer.Option(
            "--row",
            help='Of one row alone, such as "mobilenet_v2, SparseGPT, Unstructured Sparsity 50%", and its data or '
            "suite where that tells rows apart.  [all]",
        ),
    ] = None,
    license: Annotated[
        str | None, typer.Option("--license", help="hub-card: as the hub identifies it, such as mit.  [none]")
    ] = None,
    results: ResultsOption = RESULTS,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write results to MLflow, Weights & Biases, a model card or CSV, from the records alone.

    For example: `publish --to mlflow --tracking-uri http://localhost:5000`

    Nothing is sent but to the MLflow server that you name; a run is written once, however often this is called.
    """
    from coreml_prune_bench.core.files import refuse_file, write_atomically
    from coreml_prune_bench.records.accuracy import read_records
    from coreml_prune_bench.report.accuracy_tables import COLUMNS
    from coreml_prune_bench.report.config_rows import config_rows
    from coreml_prune_bench.report.formats import values, write_values
    from coreml_prune_bench.report.row_names import find_row

    for given, option, of in ((tracking_uri, "--tracking-uri", "mlflow"), (license, "--license", "hub-card")):
        if given is not None and to != of:
            raise BenchError(f"{option} is for --to {of}")
    if to == "mlflow" and out is not None:
        raise BenchError("--out is for wandb, hub-card and csv; --tracking-uri says where MLflow keeps runs")
    if to == "hub-card" and row is None:
        raise BenchError("--to hub-card is about one package: say which with --row")
    rows = config_rows(read_records(results))
    chosen = rows if row is None else [find_row(rows, row)]
    if to == "csv":
        text = write_values([values(COLUMNS, one) for one in chosen], "csv")
        if out is None:
            show(text)
            return
        refuse_file(out, str(out), replace=force)
        write_atomically(out, f"{text}\n")
        show_line(str(out))
        return
    with extras_named():
        if to == "hub-card":
            from coreml_prune_bench.report.publishing import hub_card

            out = out or Path("README.md")
            refuse_file(out, str(out), replace=force)
            write_atomically(out, hub_card.card(chosen[0], license))
            hub_card.check(out)
            show_line(str(out))
            return
        from coreml_prune_bench.report.publishing.runs import runs_of

        runs = runs_of(chosen)
        if to == "mlflow":
            from coreml_prune_bench.report.publishing import to_mlflow

            new = to_mlflow.publish(runs, tracking_uri)
            say(f"{new} of {len(runs)} runs are new")
        else:
            from coreml_prune_bench.report.publishing import to_wandb

            folder = out or Path()
            to_wandb.publish(runs, folder)
            say(f"{len(runs)} offline runs in {folder / 'wandb'}; `wandb sync --include-offline` sends them")
