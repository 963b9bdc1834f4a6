"""`cluster status`: who works for a cluster, and on what."""

from dataclasses import asdict
from time import monotonic, sleep
from typing import Any

from coreml_prune_bench.cluster.connect import Where, client_of
from coreml_prune_bench.cluster.dask_settings import dask_settings
from coreml_prune_bench.cluster.workers import Seen, workers_of

_HEARTBEAT_SECONDS = 5.0


def read_status(where: Where) -> list[Seen]:
    """The workers that tell of themselves, by name. Raises BenchError where no cluster answers."""
    with dask_settings(), client_of(where) as client:
        until_s = monotonic() + _HEARTBEAT_SECONDS
        while len(found := workers_of(client)) < len(client.nthreads()) and monotonic() < until_s:
            sleep(0.1)  # one that has just joined
        return found


def as_rows(seen: list[Seen]) -> list[dict[str, Any]]:
    """For a table."""
    return [
        {
            "worker": one.machine,
            "as": one.kind,
            "address": one.address,
            "cores": one.cores,
            "does": one.doing or "nothing",
            "sent": f"{one.sent_bytes / 1e6:,.1f} MB",
        }
        for one in seen
    ]


def as_json(seen: list[Seen]) -> list[dict[str, Any]]:
    return [asdict(one) for one in seen]
