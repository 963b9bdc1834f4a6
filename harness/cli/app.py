"""The command line: its commands by name. How they end, and with which exit codes, is ending.py's.

A command's module is imported when the command is called: `--help` and the other commands do not wait for it.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from coreml_prune_bench.cli.command import App
from coreml_prune_bench.cli.ending import EXIT_CODES, end_with
from coreml_prune_bench.cli.output import show
from coreml_prune_bench.core.progress import say

_ENDS = "Exit codes: " + "; ".join(f"**{code}** {meaning}" for code, meaning in EXIT_CODES.items()) + "."

COMMANDS = {
    "run": ("suite:run", "Measure", "Build and evaluate every cell of a suite and print its tables."),
    "build": ("suite:build", "Measure", "Prune and convert only; print where the packages are."),
    "accuracy": (
        "accuracy:accuracy",
        "Measure",
        "Top-1 and top-5 of any image classification packages, ours or not, on the val split of a data set.",
    ),
    "advise": (
        "advise:advise",
        "Measure",
        "Find the smallest package of a network that loses no more than you allow, and say why it is that one.",
    ),
    "sensitivity": (
        "sensitivity:sensitivity",
        "Measure",
        "Prune one layer at a time, data-free, and show what that does to the outputs and to top-1, by layer.",
    ),
    "latency": (
        "latency:latency",
        "Measure",
        "How long a prediction takes, where the compute plan puts it, and how much faster a sparse package is.",
    ),
    "parity": (
        "parity:parity",
        "Measure",
        "Compare Apple's runtime, on each choice of compute units, with the portable runtime on the same images.",
    ),
    "inspect": (
        "package:inspect",
        "Packages",
        "What a package holds: inputs, outputs, operations, and each weight's storage, sparsity and size.",
    ),
    "predict": ("package:predict", "Packages", "One prediction of any package, ours or not, in the portable runtime."),
    "compare": (
        "compare:compare",
        "Packages",
        "Two packages side by side on the val split: which images changed, classes, size, sparsity by layer, verdict.",
    ),
    "package": (
        "package_save:app",
        "Packages",
        "The package behind a row of a table: `package save` copies it, with labels and texts for an app.",
    ),
    "export-onnx": (
        "package:export_onnx",
        "Packages",
        "Write what the portable runtime runs as an ONNX file, weights decompressed to Float32.",
    ),
    "fetch-published": (
        "published:fetch_published",
        "Packages",
        "Download the packages and config files that the published table links, for `run --suite published`.",
    ),
    "table": ("table:table", "Results", "Tables from the records of a results folder; nothing is measured."),
    "report": (
        "report:report",
        "Results",
        "One self-contained page of a results folder: charts, sortable tables, layers, and how to reproduce each row.",
    ),
    "publish": (
        "publish:publish",
        "Results",
        "Write results to MLflow, Weights & Biases, a model card or CSV, from the records alone.",
    ),
    "gate": (
        "gate:gate",
        "Results",
        "Say of each row of a run whether it is better, the same or worse than in a baseline, or that nobody can tell.",
    ),
    "baseline": ("baseline:app", "Results", "Baselines for `gate`: small files, fit for git."),
    "suites": (
        "suites:suites",
        "Results",
        "The suites that ship: what each is for, how many cells it has and what it costs.",
    ),
    "doctor": (
        "doctor:doctor",
        "This machine",
        "What this machine can measure, what is missing for the rest and what to do, and what would disturb it now.",
    ),
    "cluster": (
        "cluster:app",
        "This machine",
        "Many machines for one suite, on Dask: start a cluster, join it, see what it does.",
    ),
    "cache": (
        "cache:app",
        "This machine",
        "What this project keeps on disk, with sizes; `cache clear` and `cache bound` make room.",
    ),
}
"""By name: "module:function" in this folder, its group in the list of `--help`, and its line there, the first of its
docstring."""


_WAITED_FOR = {name for name, (_, group, _) in COMMANDS.items() if group == "Measure"} | {"report"}
"""Commands that take seconds to import what they use, or to draw."""


class _Commands(TyperGroup):
    """Knows its commands by name and line; the one that is called is imported then."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name, help=line, rich_help_panel=group) for name, (_, group, line) in COMMANDS.items()
        }

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from coreml_prune_bench.cli.overview import overview

        panels = {"Options": [(option.opts[0], getattr(option, "help", "")) for option in self.get_params(ctx)]}
        for name, (_, group, line) in COMMANDS.items():
            panels.setdefault(group, []).append((name, line))
        end = [f"Start with: {ctx.command_path} run", _ENDS]
        formatter.write(overview(self.get_usage(ctx), self.help or "", panels, end))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args:  # Typer's no_args_is_help shows what `format_help` prints, and the one above writes
            try:
                super().parse_args(ctx, ["--help"])
            except typer.Exit as shown:
                raise typer.Exit(2) from shown
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in _WAITED_FOR and sys.stderr.isatty() and "--help" not in args:
            say(f"{name}: starting")  # before anything is imported, which takes seconds
        return name, _imported(name) if name in COMMANDS else command, rest


def _imported(name: str) -> Any:
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(import_module(f"coreml_prune_bench.cli.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        alone = App()
        alone.command(name)(found)
        found = alone
    command = get_command(found)
    for one in (command, *getattr(command, "commands", {}).values()):
        for option in one.params:
            if option.default is None and isinstance(option, TyperOption) and not _tells_default(option):
                option.help = f"{option.help}  [default: none]"
    return command


def _tells_default(option: TyperOption) -> bool:
    """Whether its help says what holds without it, in brackets at its end; of the others Typer shows the default."""
    return option.required or not option.help or option.help.endswith("]")


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
    # Pydantic would look for plugins among all that is installed, and run what it finds.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    called = "python run_bench.py" if Path(sys.argv[0]).name == "run_bench.py" else "coreml-prune-bench"
    app = typer.Typer(
        cls=_Commands,
        callback=_whole,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    end_with(lambda: app(prog_name=called))
