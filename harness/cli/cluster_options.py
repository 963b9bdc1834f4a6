"""Options of commands that can work on a cluster, and of `cluster` itself."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreml_prune_bench.cli.grouped import takes
from coreml_prune_bench.cli.options import finite
from coreml_prune_bench.core.errors import BenchError

if TYPE_CHECKING:
    from coreml_prune_bench.cluster.client import HowOnCluster
    from coreml_prune_bench.cluster.connect import Where
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


@dataclass(frozen=True)
class ClusterChoice:
    """What the options of a command that works on a cluster say."""

    cluster: ClusterOption = None
    certificates: CertificatesOption = CERTIFICATES
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            help="That a step computes with on a worker, the same on all.  [as many as a worker has cores]",
            rich_help_panel=_PANEL,
        ),
    ] = None
    task_time_limit: Annotated[
        float | None,
        typer.Option(
            "--task-time-limit",
            metavar="SECONDS",
            min=1,
            help="Of one step, after which its worker is started anew and another one tries.  [none]",
            callback=finite,
            rich_help_panel=_PANEL,
        ),
    ] = None
    wait_limit: Annotated[
        float | None,
        typer.Option(
            "--wait-limit",
            metavar="SECONDS",
            min=0,
            help="How long a run waits for a worker that can go on with it, before it ends.  [until one joins]",
            callback=finite,
            rich_help_panel=_PANEL,
        ),
    ] = None

    def asked(self) -> "tuple[Where, HowOnCluster] | None":
        """The cluster that they name, and how it works; None where they name none. Raises BenchError of one line."""
        if self.cluster is None:
            if self.threads or self.task_time_limit or self.wait_limit is not None:
                raise BenchError("--threads, --task-time-limit and --wait-limit belong to --cluster")
            return None
        from coreml_prune_bench.cluster.client import HowOnCluster
        from coreml_prune_bench.cluster.connect import Where

        how = HowOnCluster(self.threads, self.task_time_limit, self.wait_limit)
        return Where(self.cluster, self.certificates), how

    def elsewhere(self, device: str, results: Path) -> "AbstractContextManager[Elsewhere | None]":
        """The cluster that they name; None inside where they name none. Raises BenchError of one line."""
        if (asked := self.asked()) is None:
            return nullcontext()
        from coreml_prune_bench.cluster.run import Elsewhere

        return Elsewhere(*asked, device, results)


takes_cluster = takes("asked_of_cluster", ClusterChoice)
"""A command whose parameter `asked_of_cluster: ClusterChoice` becomes the options of one that works on a cluster."""
