"""A worker's process: one task at a time, on processors of its own; a nanny starts it anew when it dies."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.system import MEMORY_LIMIT

from coreml_prune_bench.cluster.workplace import ANE, CPU, GPU, Kind, Workplace
from coreml_prune_bench.models.processors import processors

if TYPE_CHECKING:
    from distributed import Security

ONLY_HERE = {"dashboard_address": "127.0.0.1:0", "dashboard": False}
"""Of Dask's web server, which speaks without TLS."""

START_SECONDS = 120
"""Until a worker's process, which imports torch, is there and has found the scheduler."""

_RESOURCES: dict[Kind, dict[str, float]] = {"cpu": {CPU: 1}, "gpu": {CPU: 1, GPU: 1}, "mac": {ANE: 1}}
"""A Mac that measures latency builds nothing beside it."""


def worker_options(place: Workplace, security: "Security", host: str, scratch: str, memory: int) -> dict[str, Any]:
    """What Dask's Nanny is given. host: the address that it listens on. scratch: the folder of its files."""
    return {
        "nthreads": 1,  # torch has one stream of random numbers in a process
        "plugins": (place,),
        "resources": {**_RESOURCES[place.kind], f"machine {place.machine}": 1},
        "security": security,
        "host": host,
        "protocol": "tls://",
        "local_directory": scratch,
        "memory_limit": memory,
        "death_timeout": START_SECONDS,  # else one that starts anew looks for ever for a scheduler that ended meanwhile
        "silence_logs": logging.CRITICAL,
        **ONLY_HERE,
    }


def parts_of_processors(count: int) -> list[tuple[int, ...]]:
    """This process's, divided among so many workers; shared where there are fewer."""
    all_ = sorted(processors())
    if len(all_) < count:
        return [(all_[number % len(all_)],) for number in range(count)]
    return [tuple(all_[number::count]) for number in range(count)]


def memory_of_each(count: int) -> int:
    """Bytes after which a worker's process is started anew."""
    return int(MEMORY_LIMIT / count)


def folder_of(scratch: Path | None) -> Path:
    """Where the workers of this machine keep what they work on."""
    from coreml_prune_bench.core.cache_folder import cache_folder

    return scratch or cache_folder() / "cluster"
