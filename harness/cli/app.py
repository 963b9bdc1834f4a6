"""The command line. Errors of the user's end in one line and exit code 2; a run with failed cells in exit code 1."""

import errno
import os
import sys
from typing import NoReturn

import typer
from rich.console import Console

from coreml_prune_bench.cli.advise import advise
from coreml_prune_bench.cli.baseline import app as baseline
from coreml_prune_bench.cli.compare import compare
from coreml_prune_bench.cli.doctor import doctor
from coreml_prune_bench.cli.gate import gate
from coreml_prune_bench.cli.latency import latency
from coreml_prune_bench.cli.package import (
    accuracy,
    export_onnx,
    inspect,
    predict,
)
from coreml_prune_bench.cli.parity import parity
from coreml_prune_bench.cli.published import fetch_published
from coreml_prune_bench.cli.report import report
from coreml_prune_bench.cli.sensitivity import sensitivity
from coreml_prune_bench.cli.suite import build, run
from coreml_prune_bench.cli.table import table
from coreml_prune_bench.core.errors import BenchError

_INTERRUPTED = 130  # how Typer ends on Ctrl-C

app = typer.Typer(
    help="Prune networks, convert them to sparse Core ML packages and measure the packages themselves, on any machine.",
    epilog="Start with: python run_bench.py run",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    run,
    build,
    accuracy,
    inspect,
    predict,
    export_onnx,
    fetch_published,
    table,
    report,
    advise,
    compare,
    gate,
    latency,
    parity,
    sensitivity,
    doctor,
):
    app.command()(command)
app.add_typer(baseline, name="baseline")


def main() -> None:
    """Run the command line and turn what the user can mend into one line and exit code 2."""
    try:
        app()
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
    # A damaged package may bring line ends and control characters into the one line.
    line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in message)
    Console(stderr=True).print(f"error: {line}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
