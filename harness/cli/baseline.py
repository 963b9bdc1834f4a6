"""`baseline`: save, list, show and compare what a gate compares with."""

from pathlib import Path
from typing import Annotated, Any

import typer

from coreml_prune_bench.cli.command import App
from coreml_prune_bench.cli.options import RESULTS, JsonOption, ResultsOption
from coreml_prune_bench.cli.output import show, show_json, tabled
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.files import is_foreign, refuse_file
from coreml_prune_bench.core.progress import Reporter

_FILE = Path("results/baseline.json")

Source = Annotated[
    str, typer.Argument(metavar="FILE|DIR|GIT-REF", help="A baseline file, a results folder, or a git revision.")
]

app = App(
    help="Baselines for `gate`: small files, fit for git.",
    no_args_is_help=True,
)


@app.command()
def save(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = _FILE,
    results: ResultsOption = RESULTS,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Write the newest state of every row of a results folder as a baseline.

    For example: `baseline save --results results/local`
    """
    from coreml_prune_bench.gating.baseline import read_results, write_baseline

    refuse_file(file, str(file), replace=force)
    baseline = read_results(results, whole=True)
    write_baseline(file, baseline)
    for failure in baseline.failures:
        cell = ", ".join(part for part in (failure.model, failure.algorithm, failure.config) if part)
        Reporter().say(f"left out, because it failed: {failure.kind} of {cell}: {failure.reason}")
    rows = len(baseline.accuracy) + len(baseline.latency)
    show(f"{file}: {rows} rows, {file.stat().st_size:,} bytes")


@app.command(name="list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to look.")] = _FILE.parent,
    as_json: JsonOption = False,
) -> None:
    """The baselines in a folder and its folders: files called `*baseline*.json`.

    For example: `baseline list results`
    """
    from coreml_prune_bench.gating.baseline import read_baseline

    if not folder.is_dir():
        raise BenchError(f"no folder {folder}")
    found: list[dict[str, Any]] = []
    paths = (*folder.glob("*baseline*.json"), *folder.glob("*/*baseline*.json"))
    for path in sorted(path for path in paths if not is_foreign(path.name)):
        try:
            baseline = read_baseline(path)
        except BenchError as error:
            problem = str(error)
            found.append({"file": str(path), "accuracy_rows": None, "latency_rows": None, "measured": problem})
            continue
        rows = {"accuracy_rows": len(baseline.accuracy), "latency_rows": len(baseline.latency)}
        found.append({"file": str(path), **rows, "measured": baseline.measured})
    _print(found, as_json)


@app.command(name="show")
def show_(source: Source = str(_FILE), as_json: JsonOption = False) -> None:
    """The rows of a baseline.

    For example: `baseline show results/baseline.json`
    """
    from coreml_prune_bench.gating.baseline import load_baseline
    from coreml_prune_bench.gating.baseline_tables import overview

    _print(overview(load_baseline(source)), as_json)


@app.command()
def diff(first: Source, second: Source, as_json: JsonOption = False) -> None:
    """Every value in which two baselines differ. Whether a difference means anything, `gate` says.

    For example: `baseline diff main results/baseline.json`
    """
    from coreml_prune_bench.gating.baseline import load_baseline
    from coreml_prune_bench.gating.baseline_tables import differences

    _print(differences(load_baseline(first), load_baseline(second)), as_json)


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        show_json(rows)
    elif not rows:
        show("none")
    else:
        shown = [{name: _worded(value) for name, value in row.items()} for row in rows]
        show(tabled(shown))


def _worded(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:,.2f}".removesuffix(".00") if isinstance(value, float) else str(value)
