"""What `cluster start` and `cluster join` run until they are ended: a scheduler, and the workers of one machine."""

import asyncio
import ipaddress
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import Client, Nanny, Scheduler
from distributed.utils import get_ip

from coreml_prune_bench.cluster.certificates import are_made, make_certificates, security_of
from coreml_prune_bench.cluster.connect import CONNECT_SECONDS, Where, no_connection
from coreml_prune_bench.cluster.dask_settings import dask_settings
from coreml_prune_bench.cluster.versions import differences, versions
from coreml_prune_bench.cluster.worker_process import START_SECONDS, memory_of_each, parts_of_processors, worker_options
from coreml_prune_bench.cluster.workplace import NAME, Workplace
from coreml_prune_bench.core.errors import BenchError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Listening:
    """host: an address of this machine. port, dashboard_port: 0 for any that is free."""

    host: str
    port: int
    dashboard_port: int


def usual_host() -> str:
    """This machine's address in its own network; where that is a public one or there is none, this machine alone."""
    try:
        address = get_ip()
        return address if ipaddress.ip_address(address).is_private else "127.0.0.1"
    except (OSError, ValueError):
        return "127.0.0.1"


def start(listening: Listening, certificates: Path, show: Say) -> None:
    """Run a scheduler. The certificate is made where there is none yet. Raises BenchError where it cannot listen."""
    if not are_made(certificates):
        make_certificates(certificates)
    with dask_settings():
        asyncio.run(_scheduler(listening, certificates, show))


async def _scheduler(listening: Listening, certificates: Path, show: Say) -> None:
    scheduler = Scheduler(
        host=listening.host,
        port=listening.port,
        protocol="tls://",
        security=security_of(certificates),
        dashboard=True,
        dashboard_address=f"127.0.0.1:{listening.dashboard_port}",
    )
    try:
        await scheduler
    except OSError as error:
        raise BenchError(f"cannot listen on {listening.host}, port {listening.port}: {error.strerror}") from error
    async with scheduler:
        scheduler.task_metadata[NAME] = versions()
        folder = certificates.resolve()
        show(f"address: {scheduler.address}")
        dashboard: Any = scheduler.services["dashboard"]
        show(f"dashboard, on this machine alone: http://127.0.0.1:{dashboard.port}/status")
        show(f"certificate and key: {folder}; whoever has them can run anything on every worker")
        show("on each other machine, with a copy of that folder:")
        show(f"coreml-prune-bench cluster join {scheduler.address} --as cpu --certificates {folder}")
        await scheduler.finished()


@dataclass(frozen=True)
class Joining:
    """place: of the first worker; others have a number behind its machine's name. count: of workers on this machine.

    host: the address that they listen on; None for that from which the scheduler is reached. port: of the first one,
    the others' behind it; None for any.
    """

    place: Workplace
    count: int
    scratch: Path
    host: str | None = None
    port: int | None = None


def join(where: Where, joining: Joining, say: Say) -> None:
    """Work for a cluster until it ends. Raises BenchError where there is none, or code or versions are others."""
    security_of(where.certificates)
    joining.scratch.mkdir(parents=True, exist_ok=True)
    with dask_settings():
        asyncio.run(_workers(where, joining, say))


async def _workers(where: Where, joining: Joining, say: Say) -> None:
    security = security_of(where.certificates)
    try:
        async with Client(where.address, security=security, asynchronous=True, timeout=CONNECT_SECONDS) as client:
            theirs = await client.get_metadata([NAME], default={})
    except (OSError, ValueError) as error:
        raise BenchError(no_connection(where, error)) from error
    if found := differences(joining.place.versions, theirs, "at the scheduler"):
        raise BenchError(f"this machine does not fit the cluster: {found.replace(' there ', ' here ')}")
    host = joining.host or get_ip(*_host_and_port(where.address))
    memory = memory_of_each(joining.count)
    async with AsyncExitStack() as stack:
        nannies = []
        for number, processors in enumerate(parts_of_processors(joining.count)):
            name = joining.place.machine + (f"-{number + 1}" if joining.count > 1 else "")
            place = replace(joining.place, machine=name, processors=processors)
            options = worker_options(place, security, host, str(joining.scratch), memory)
            if joining.port is not None:
                options |= {"worker_port": joining.port + 2 * number, "port": joining.port + 2 * number + 1}
            try:
                nannies.append(await stack.enter_async_context(Nanny(where.address, **options)))
            except TimeoutError as error:
                raise BenchError(f"{name} did not start within {START_SECONDS} s: is this machine too busy?") from error
            say(f"{name} works for {where.address} as {place.kind}")
        await asyncio.gather(*(nanny.finished() for nanny in nannies))
    say(f"{where.address} has ended")


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("tls://").rpartition(":")
    if not host or not port.isdecimal():
        raise BenchError(f"{address}: expected tls://HOST:PORT")
    return host, int(port)
