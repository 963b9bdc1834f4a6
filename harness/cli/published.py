"""`fetch-published`: the packages and config files that the published table links."""

import json
from collections.abc import Callable

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from coreml_prune_bench.cli.options import (
    JsonOption,
    ModelsOption,
    exit_with_failures,
    split_commas,
)
from coreml_prune_bench.report.formats import write_cells


def fetch_published(models: ModelsOption = None, as_json: JsonOption = False) -> None:
    """Download the packages and config files that the published table links, for `run --suite published`.

    They are kept in this project's cache folder (COREML_BENCH_CACHE names another). Their hashes are recorded at the
    first download and checked ever after. An interrupted download goes on where it was when started again.
    """
    from coreml_prune_bench.published.packages import fetch, published_folder, rows_of

    rows = rows_of(split_commas(models))
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        fetched, problems = fetch(rows, published_folder(), progress=_bars(bars), say=lambda line: console.print(line))
    found = [
        {
            "file": file.path.name,
            "size_bytes": file.size_bytes,
            "sha256": file.sha256,
            "new": file.new,
            "path": str(file.path),
        }
        for file in fetched
    ]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        shown = [
            {
                "File": file.path.name,
                "Downloaded (bytes)": f"{file.size_bytes:,}",
                "SHA-256": file.sha256[:16],
                "State": "downloaded now" if file.new else "was there, unchanged",
            }
            for file in fetched
        ]
        typer.echo(write_cells(shown))
        typer.echo(f"\nin {published_folder()}")
    if problems:
        exit_with_failures(problems)


def _bars(progress: Progress) -> Callable[[str, int, int | None], None]:
    """A bar for each file, which stays to the end."""
    tasks: dict[str, TaskID] = {}

    def update(file: str, done: int, total: int | None) -> None:
        if file not in tasks:
            tasks[file] = progress.add_task(file, total=total)
        progress.update(tasks[file], completed=done, total=total)

    return update
