"""The command line: its commands by name. How they end, and with which exit codes, is ending.py's.

A command's module is imported when the command is called: `--help` and the other commands do not wait for it.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from coreml_prune_bench.cli.ending import EXIT_CODES, end_with
from coreml_prune_bench.cli.output import show

_ENDS = "Exit codes: " + "; ".join(f"**{code}** {meaning}" for code, meaning in EXIT_CODES.items()) + "."

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
        "Compare Apple's runtime, on each choice of compute units, with the portable runtime on the same images.",
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

        show(f"coreml-prune-bench {version('coreml-prune-bench')}")
        raise typer.Exit


def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Prune networks, convert them to sparse Core ML packages and measure the packages themselves, on any machine."""


def main() -> None:
    """Run the command line, and end the program with its exit code."""
    called = "python run_bench.py" if Path(sys.argv[0]).name == "run_bench.py" else "coreml-prune-bench"
    app = typer.Typer(
        cls=_Commands,
        callback=_whole,
        epilog=f"Start with: {called} run\n\n{_ENDS}",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    end_with(lambda: app(prog_name=called))
