"""Options of commands that can work on a cluster, and of `cluster` itself."""

from pathlib import Path
from typing import Annotated

import typer

from coreml_prune_bench.cli.options import finite

CERTIFICATES = Path("~/.coreml-prune-bench/cluster")

_PANEL = "Many machines"
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Measure on the workers of a cluster, tls://HOST:PORT as `cluster start` prints it, or on N processes of "
        "this machine, local:N. With the extra `cluster`.  [this process]",
        rich_help_panel=_PANEL,
    ),
]
CertificatesOption = Annotated[
    Path,
    typer.Option(
        "--certificates", metavar="DIR", help="Of the cluster, as `cluster start` made them.", rich_help_panel=_PANEL
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="That a step computes with on a worker, the same on all.  [as many as a worker has cores]",
        rich_help_panel=_PANEL,
    ),
]
TaskTimeLimitOption = Annotated[
    float | None,
    typer.Option(
        "--task-time-limit",
        metavar="SECONDS",
        min=1,
        help="Of one step, after which its worker is started anew and another one tries.  [none]",
        callback=finite,
        rich_help_panel=_PANEL,
    ),
]
WaitLimitOption = Annotated[
    float | None,
    typer.Option(
        "--wait-limit",
        metavar="SECONDS",
        min=0,
        help="How long a run waits for a worker that can go on with it, before it ends.  [until one joins]",
        callback=finite,
        rich_help_panel=_PANEL,
    ),
]
