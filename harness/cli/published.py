"""`fetch-published`: the packages and config files that the published table links."""

from collections.abc import Callable

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
from coreml_prune_bench.cli.output import show, show_json, tabled
from coreml_prune_bench.core.escaping import message
from coreml_prune_bench.core.progress import Reporter


def fetch_published(models: ModelsOption = None, as_json: JsonOption = False) -> None:
    """Download the packages and config files that the published table links, for `run --suite published`.

    For example: `fetch-published --model mobilenet_v2`

    They are kept in this project's cache folder (COREML_BENCH_CACHE names another). Their hashes are recorded at the
    first download and checked ever after. An interrupted download goes on where it was when started again.
    """
    from coreml_prune_bench.published.packages import fetch, published_folder, rows_of

    rows = rows_of(split_commas(models))
    reporter = Reporter()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with reporter.bars(*columns) as bars:
        fetched, problems = fetch(rows, published_folder(), progress=_bars(bars), say=reporter.say)
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
        show_json(found)
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
        show(tabled(shown))
        show(f"\nin {published_folder()}")
    if problems:
        exit_with_failures(problems)


def _bars(progress: Progress) -> Callable[[str, int, int | None], None]:
    """A bar for each file, which stays to the end."""
    tasks: dict[str, TaskID] = {}

    def update(file: str, done: int, total: int | None) -> None:
        if file not in tasks:
            tasks[file] = progress.add_task(message(file), total=total)
        progress.update(tasks[file], completed=done, total=total)

    return update
