"""`cluster`: many machines for one suite, on Dask."""

import platform
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from coreml_prune_bench.cli import output
from coreml_prune_bench.cli.cluster_options import CERTIFICATES, CertificatesOption
from coreml_prune_bench.cli.command import App
from coreml_prune_bench.cli.options import JsonOption
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import say

app = App(
    help="Many machines for one suite, on Dask: start a cluster, join it, see what it does.\n\n"
    "Needs the extra `cluster`. Whoever has a cluster's certificate can run anything on each of its machines: "
    "docs/cluster.md.",
    no_args_is_help=True,
)

AddressArgument = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="tls://HOST:PORT, as `cluster start` prints it.")
]


@app.command()
def start(
    certificates: CertificatesOption = CERTIFICATES,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Of this machine, to listen on.  [its own in a private network, else this machine alone]",
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8786,
    dashboard_port: Annotated[
        int, typer.Option("--dashboard-port", min=0, max=65535, help="Of Dask's dashboard, on this machine alone.")
    ] = 8787,
) -> None:
    """Run a cluster's scheduler until Ctrl-C, and say what the other machines have to call.

    For example: `cluster start --host 192.168.1.10`

    The certificate is made if there is none yet; copy its folder to the machines that join.
    """
    from coreml_prune_bench.cluster.serve import Listening, usual_host
    from coreml_prune_bench.cluster.serve import start as start_scheduler

    listening = Listening(host or usual_host(), port, dashboard_port)
    start_scheduler(listening, certificates, _show_now)


@app.command()
def join(
    address: AddressArgument,
    kind: Annotated[
        Literal["cpu", "gpu", "mac"],
        typer.Option("--as", help="cpu: builds and evaluates. gpu: trains too. mac: what Core ML does alone."),
    ] = "cpu",
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes, among which this machine's cores are divided.")
    ] = 1,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", metavar="[NETWORK=]SPEC", help="This machine's copy of the images.  [where the client has them]"
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="DIR", help="This machine's folder of weights.  [where the client has them]"),
    ] = None,
    certificates: CertificatesOption = CERTIFICATES,
    name: Annotated[
        str | None, typer.Option("--name", help="Of this machine, in progress and reasons.  [its host name]")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="ADDRESS", help="Of this machine, to listen on.  [that which reaches the scheduler]"
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65534, help="Of the first worker; it and the next one are used.  [any that is free]"
        ),
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option("--scratch", metavar="DIR", help="For what is being worked on.  [in the cache folder]"),
    ] = None,
    shared: Annotated[
        Path | None,
        typer.Option(
            "--shared",
            metavar="DIR",
            help="A folder that other workers have, too, such as a network share: a training goes on there from the "
            "checkpoint of a worker that died.  [none]",
        ),
    ] = None,
) -> None:
    """Work for a cluster until it ends, with this machine's own data and weights.

    For example: `cluster join tls://192.168.1.10:8786 --as gpu --data imagenet:/data/imagenet`
    """
    from coreml_prune_bench.cluster.connect import Where
    from coreml_prune_bench.cluster.serve import Joining
    from coreml_prune_bench.cluster.serve import join as join_cluster
    from coreml_prune_bench.cluster.versions import versions
    from coreml_prune_bench.cluster.worker_process import folder_of
    from coreml_prune_bench.cluster.workplace import Workplace

    if kind == "mac" and workers > 1:
        raise BenchError("--as mac: one worker, so that nothing disturbs what is measured; leave out --workers")
    weights_folder = weights.resolve() if weights else None
    place = Workplace(
        name or platform.node() or "worker",
        kind,
        versions(),
        tuple(data) if data else None,
        weights_folder,
        shared=shared.resolve() if shared else None,
    )
    joining = Joining(place, workers, folder_of(scratch), host, port)
    join_cluster(Where(_tls(address), certificates), joining, say)


@app.command()
def status(
    address: AddressArgument, certificates: CertificatesOption = CERTIFICATES, as_json: JsonOption = False
) -> None:
    """The workers of a cluster, what each is for and does, and how much it has sent to others.

    For example: `cluster status tls://192.168.1.10:8786 --json`
    """
    from coreml_prune_bench.cluster import status as found
    from coreml_prune_bench.cluster.connect import Where

    seen = found.read_status(Where(_tls(address), certificates))
    if as_json:
        output.show_json(found.as_json(seen))
    elif seen:
        output.show(output.tabled(found.as_rows(seen)))
    else:
        output.show("no workers")


def _tls(address: str) -> str:
    if not address.startswith("tls://"):
        raise BenchError(f"{address}: expected tls://HOST:PORT; without TLS nothing is sent")
    return address


def _show_now(line: str) -> None:
    """At once, also into a file: the scheduler runs until it is ended."""
    output.show(line)
    sys.stdout.flush()
