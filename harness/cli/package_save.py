"""`package save`: the package behind a row, as an app takes it."""

from pathlib import Path
from typing import Annotated

import typer

from coreml_prune_bench.cli.command import App
from coreml_prune_bench.cli.options import RESULTS, ResultsOption
from coreml_prune_bench.cli.output import show_line
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import say

app = App(
    help="The package behind a row of a table: `package save` copies it, with labels and texts for an app.",
    no_args_is_help=True,
)


@app.callback()
def _whole() -> None:
    """The package behind a row of a table."""


@app.command()
def save(
    row: Annotated[
        str,
        typer.Argument(
            metavar="ROW",
            help="Its network, algorithm and config, or data too: as much as tells its package from others.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.mlpackage", help="The copy; nothing may be there.")],
    results: ResultsOption = RESULTS,
    suite: Annotated[str | None, typer.Option("--suite", help="Of rows of several suites, this one's.  [any]")] = None,
    trial: Annotated[
        int | None, typer.Option("--trial", min=1, help="Of several, this one, from 1.  [the only]")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="FILE|data",
            help="A label a line, in the order of the data's classes; or `data`: their names.  [as built]",
        ),
    ] = None,
    softmax: Annotated[
        bool | None,
        typer.Option("--softmax/--no-softmax", help="Scores become probabilities.  [where there are labels]"),
    ] = None,
    image_sizes: Annotated[
        str | None,
        typer.Option("--image-sizes", metavar="N,N", help="Sides in pixels that it takes too.  [as built]"),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the model is called.  [as built]")] = None,
    author: Annotated[str | None, typer.Option("--author", help="Who made it.  [as built]")] = None,
    license: Annotated[str | None, typer.Option("--license", help="Its terms.  [as built, or its weights']")] = None,
    description: Annotated[str | None, typer.Option("--description", help="What it is for.  [as built]")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Of the model.  [as built]")] = None,
) -> None:
    """Copy the package of a row, with what its record says (config, sparsity, scope, accuracy) in its metadata.

    For example: `package save "mobilenet_v2, SparseGPT, Unstructured Sparsity 50%" Flowers.mlpackage --labels data`

    Nothing is measured or built. The weights stay what they were; `accuracy` measures the copy as any package.
    """
    from coreml_prune_bench.bench.app import App
    from coreml_prune_bench.bench.saved_package import save_package
    from coreml_prune_bench.records.accuracy import read_records
    from coreml_prune_bench.report.config_rows import config_rows
    from coreml_prune_bench.report.row_names import find_row, row_name

    found = find_row(config_rows(read_records(results)), row, suite, for_package=True)
    records = {record.trial + 1: record for record in found.measured}
    if trial is None and len(records) > 1:
        told = ", ".join(f"{n} ({100 * r.predictions.top1:.2f} %)" for n, r in records.items() if r.predictions)
        raise BenchError(f'"{row_name(found)}" has several trials; say which with --trial: {told}')
    record = records.get(trial or next(iter(records)))
    if record is None:
        raise BenchError(f'--trial {trial}: "{row_name(found)}" has {", ".join(map(str, records))}')
    texts = {"name": name, "author": author, "license": license, "description": description, "version": version}
    sizes = tuple(filter(None, (image_sizes or "").split(",")))
    if not all(size.isdecimal() and 16 <= int(size) <= 1024 for size in sizes):
        raise BenchError(f"--image-sizes {image_sizes}: expected sides in pixels, from 16 to 1024, such as 160,192")
    asked = App.model_validate(
        {"labels": True if labels == "data" else labels or False, "softmax": softmax, "image_sizes": sizes}
        | {name: text for name, text in texts.items() if text is not None}
    )
    content = asked.content(_classes(record.data.spec) if labels == "data" else [""] * record.data.classes)
    save_package(record, results, out, content, say)
    show_line(str(out))


def _classes(spec: str) -> list[str]:
    from coreml_prune_bench.data.halves import open_data_or_part

    return list(open_data_or_part(spec).classes)
