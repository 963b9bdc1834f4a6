"""Loads a package in this process, which is new, and prints as JSON what that took.

python -m tests.benchmarks.load_once cold|cached PACKAGE
"""

import json
import re
import resource
import sys
import time
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most memory that this process has had so far."""
    if _STATUS.is_file():  # Linux, whose getrusage begins with the memory of the parent
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(state: str, package: str) -> None:
    started = time.perf_counter()
    import coreml_prune_bench.runtimes.portable.session
    from coreml_prune_bench.runtimes import portable

    if state == "cold":
        import filelock  # noqa: F401

        import coreml_prune_bench.runtimes.portable.model_file  # noqa: F401
        from coreml_prune_bench.mlprogram.specification import new_specification

        new_specification()
    imported = time.perf_counter()
    before = peak_bytes()
    loading = time.perf_counter()
    portable.load(package, threads=2)
    loaded = time.perf_counter()
    found = {"imports_s": imported - started, "load_s": loaded - loading, "growth_bytes": peak_bytes() - before}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
