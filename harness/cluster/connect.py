"""A client of a cluster: of one that runs (`tls://HOST:PORT`), or of one that is started here for a run (`local:N`)."""

import logging
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster
from filelock import FileLock, Timeout

from coreml_prune_bench.cluster.certificates import make_certificates, security_of
from coreml_prune_bench.cluster.dask_settings import dask_settings
from coreml_prune_bench.cluster.own_folder import own_folder
from coreml_prune_bench.cluster.versions import versions
from coreml_prune_bench.cluster.worker_process import ONLY_HERE, memory_of_each, parts_of_processors, worker_options
from coreml_prune_bench.cluster.workplace import Kind, Workplace
from coreml_prune_bench.core.errors import BenchError

CONNECT_SECONDS = 10
_LOCAL = "local:"


@dataclass(frozen=True)
class Where:
    """address: `local:N` or `tls://HOST:PORT`. certificates: the folder; of no matter for a local one."""

    address: str
    certificates: Path

    @property
    def count(self) -> int | None:
        """Of workers to start here; None for a cluster that runs. Raises BenchError for what is no address."""
        if self.address.startswith(_LOCAL):
            number = self.address.removeprefix(_LOCAL)
            if number.isdecimal() and int(number) > 0:
                return int(number)
        elif self.address.startswith("tls://"):
            return None
        raise BenchError(f"--cluster {self.address}: expected local:N or tls://HOST:PORT; without TLS nothing is sent")


@contextmanager
def connected(where: Where, kind: Kind = "cpu", kept: Path | None = None) -> Iterator[Client]:
    """A client inside the block; of workers of `kind` where they are started here.

    kept: a folder for what those share; where the block raises, it stays for the next run to go on from.
    """
    count = where.count
    with dask_settings():
        if count is None:
            with client_of(where) as client:
                yield client
        else:
            with _local(count, kind, kept) as client:
                yield client


def client_of(where: Where) -> Client:
    """Raises BenchError of one line where it cannot be connected to."""
    try:
        return Client(where.address, security=security_of(where.certificates), timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise BenchError(no_connection(where, error)) from error


def no_connection(where: Where, error: BaseException) -> str:
    """Why there is none, from the bottom of Dask's chain of errors."""
    causes = [error]
    while (below := causes[-1].__cause__ or causes[-1].__context__) is not None and below not in causes:
        causes.append(below)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return (
            f"{where.address} does not take the certificate in {where.certificates}: copy that of its `cluster start`"
        )
    return f"no cluster answers at {where.address}: {causes[-1]}; `cluster start` starts one"


@contextmanager
def _local(count: int, kind: Kind, kept: Path | None) -> Iterator[Client]:
    """Scheduler and workers of this process: they end with it, however it ends."""
    with own_folder() as folder, _shared(kept, folder / "shared") as shared:
        certificates = folder / "certificates"
        make_certificates(certificates)
        security, known = security_of(certificates), versions()
        parts = parts_of_processors(count)
        places = [
            Workplace(f"local-{n + 1}", kind, known, processors=part, shared=shared) for n, part in enumerate(parts)
        ]
        memory = memory_of_each(count)
        workers = {place.machine: worker_options(place, security, "127.0.0.1", str(folder), memory) for place in places}
        scheduler = {"host": "127.0.0.1", "protocol": "tls://", "port": 0, "security": security, **ONLY_HERE}
        with dask.config.set({"temporary-directory": str(folder)}):
            cluster = SpecCluster(
                scheduler={"cls": Scheduler, "options": scheduler},
                workers={name: {"cls": Nanny, "options": options} for name, options in workers.items()},
                security=security,
                silence_logs=logging.CRITICAL,
            )
            with cluster, Client(cluster, security=security) as client:
                yield client


@contextmanager
def _shared(kept: Path | None, temporary: Path) -> Iterator[Path]:
    """`kept`, which goes when the block has ended as it should; `temporary` where another run works in it."""
    if kept is None:
        yield temporary
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(kept.with_name(f"{kept.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield temporary
        return
    try:
        yield kept.resolve()
        shutil.rmtree(kept, ignore_errors=True)
    finally:
        lock.release()
