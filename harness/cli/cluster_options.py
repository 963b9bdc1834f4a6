"""Options of commands that can work on a cluster, and of `cluster` itself."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreml_prune_bench.cli.options import finite
from coreml_prune_bench.core.errors import BenchError

if TYPE_CHECKING:
    from coreml_prune_bench.cluster.run import Elsewhere

CERTIFICATES = Path("~/.coreml-prune-bench/cluster")

_PANEL = "Many machines"
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Work on the workers of a cluster, tls://HOST:PORT as `cluster start` prints it, or on N processes of "
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


def elsewhere(
    cluster: str | None,
    certificates: Path,
    threads: int | None,
    task_time_limit: float | None,
    wait_limit: float | None,
    device: str,
) -> "AbstractContextManager[Elsewhere | None]":
    """The cluster that a command's options name; None inside where they name none. Raises BenchError of one line."""
    if cluster is None:
        if threads or task_time_limit or wait_limit is not None:
            raise BenchError("--threads, --task-time-limit and --wait-limit belong to --cluster")
        return nullcontext()
    from coreml_prune_bench.cluster.client import HowOnCluster
    from coreml_prune_bench.cluster.connect import Where
    from coreml_prune_bench.cluster.run import Elsewhere

    how = HowOnCluster(threads, task_time_limit, wait_limit)
    return Elsewhere(Where(cluster, certificates.expanduser()), how, device)
