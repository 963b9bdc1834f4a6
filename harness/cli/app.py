"""The command line. Errors of the user's end in one line and exit code 2; a run with failed cells in exit code 1.

A command's module is imported when the command is called: `--help` and the other commands do not wait for it.
"""

import errno
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.extras import extras_named

_INTERRUPTED = 130  # how Typer ends on Ctrl-C

COMMANDS = {
    "run": ("suite:run", "Build and evaluate every cell of a suite and print its tables."),
    "build": ("suite:build", "Prune and convert only; print where the packages are."),
    "accuracy": (
        "package:accuracy",
        "Top-1 and top-5 of any image classification packages, ours or not, on the val split of a data set.",
    ),
    "inspect": (
        "package:inspect",
        "What a package holds: inputs, outputs, operations, and each weight's storage, sparsity and size.",
    ),
    "predict": ("package:predict", "One prediction of any package, ours or not, in the portable runtime."),
    "export-onnx": (
        "package:export_onnx",
        "Write what the portable runtime runs as an ONNX file, weights decompressed to Float32.",
    ),
    "fetch-published": (
        "published:fetch_published",
        "Download the packages and config files that the published table links, for `run --suite published`.",
    ),
    "table": ("table:table", "Tables from the records of a results folder; nothing is measured."),
    "report": (
        "report:report",
        "One self-contained page of a results folder: charts, sortable tables, layers, and how to reproduce each row.",
    ),
    "advise": (
        "advise:advise",
        "Find the smallest package of a network that loses no more than you allow, and say why it is that one.",
    ),
    "compare": (
        "compare:compare",
        "Two packages side by side on the val split: which images changed, classes, size, sparsity by layer, verdict.",
    ),
    "gate": (
        "gate:gate",
        "Say of each row of a run whether it is better, the same or worse than in a baseline, or that nobody can tell.",
    ),
    "latency": (
        "latency:latency",
        "How long a prediction takes, where the compute plan puts it, and how much faster a sparse package is.",
    ),
    "parity": (
        "parity:parity",
        "Compare Core ML with the portable runtime on the same images: top-1 agreement, error of the scores, accuracy.",
    ),
    "sensitivity": (
        "sensitivity:sensitivity",
        "Prune one layer at a time, data-free, and show what that does to the outputs and to top-1, by layer.",
    ),
    "doctor": (
        "doctor:doctor",
        "What this machine can measure, what is missing for the rest and what to do, and what would disturb it now.",
    ),
    "cache": ("cache:app", "What this project keeps on disk, with sizes; `cache clear` and `cache bound` make room."),
    "baseline": ("baseline:app", "Baselines for `gate`: small files, fit for git."),
}
"""By name: "module:function" in this folder, and its line in the list of `--help`, the first of its docstring."""


class _Commands(TyperGroup):
    """Knows its commands by name and line; the one that is called is imported then."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=line) for name, (_, line) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _imported(name) if name in COMMANDS else command, rest


def _imported(name: str) -> Any:
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(import_module(f"coreml_prune_bench.cli.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        alone.command(name)(found)
        found = alone
    return get_command(found)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"coreml-prune-bench {version('coreml-prune-bench')}")
        raise typer.Exit


def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Prune networks, convert them to sparse Core ML packages and measure the packages themselves, on any machine."""


def main() -> None:
    """Run the command line and turn what the user can mend into one line and exit code 2."""
    called = "python run_bench.py" if Path(sys.argv[0]).name == "run_bench.py" else "coreml-prune-bench"
    app = typer.Typer(
        cls=_Commands,
        callback=_whole,
        epilog=f"Start with: {called} run",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    try:
        with extras_named():
            app(prog_name=called)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            _fail("interrupted; what was finished is kept, the same command goes on from there")
        raise
    except BenchError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        _fail(f"{os.strerror(error.errno)}: {error.filename or 'while writing'}; what was finished is kept")


def _fail(message: str) -> NoReturn:
    from rich.console import Console

    # A damaged package may bring line ends and control characters into the one line.
    line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in message)
    Console(stderr=True).print(f"error: {line}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
