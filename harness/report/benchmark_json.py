"""Latency records in pytest-benchmark's JSON, which its `compare` command and common CI actions read.

Statistics are defined as pytest-benchmark 5 defines them, over every sample: what they say of correlated samples is for
reading, not for verdicts.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency.statistics import durations, energy_mj
from coreml_prune_bench.records.latency import LatencyRecord

_FORMAT = "5.3.1"
"""The version of pytest-benchmark whose format this is."""


def to_benchmark_json(records: Iterable[LatencyRecord]) -> dict[str, Any]:
    """The measured ones of `records` as one file's content, times in seconds. Raises BenchError if there are none.

    A benchmark's time is the model's where the runtime tells it, else the call's; `extra_info` says which.
    """
    measured = [record for record in records if record.status == "measured"]
    if not measured:
        raise BenchError("no measured latency to write: every record failed, or there is none")
    first = measured[0]
    return {
        "machine_info": _machine(first),
        "commit_info": _commit(first),
        "benchmarks": [_benchmark(record) for record in measured],
        "datetime": first.provenance.created,
        "version": _FORMAT,
    }


def _machine(record: LatencyRecord) -> dict[str, Any]:
    device, provenance = record.device, record.provenance
    return {
        "node": provenance.host,
        "processor": device.chip,
        "machine": provenance.machine,
        "python_implementation": "CPython",
        "python_version": provenance.python,
        "system": device.os,
        "release": device.os_version,
        "cpu": {"brand_raw": device.chip, "count": provenance.cpu_count},
    }


def _commit(record: LatencyRecord) -> dict[str, Any]:
    made_with = record.provenance
    commit = made_with.git_commit or made_with.packages.get("coreml-prune-bench", "unversioned")
    return {
        "id": commit.removesuffix("+"),
        "time": record.provenance.created,
        "author_time": record.provenance.created,
        "dirty": commit.endswith("+"),
        "project": "coreml-prune-bench",
        "branch": "(unknown)",
    }


def _benchmark(record: LatencyRecord) -> dict[str, Any]:
    package, units = record.package, record.runtime.compute_units
    told = all(one.model_ns is not None for one in record.rounds)
    samples = [one.model_ns if told and one.model_ns is not None else one.call_ns for one in record.rounds]
    return {
        "group": None,
        "name": f"{package.name}[{units}]",
        "fullname": f"{record.device.name}::{package.name}[{units}]",
        "params": {"compute_units": units},
        "param": units,
        "extra_info": {
            "time": "model" if told else "call",
            "runtime": f"{record.runtime.name} {record.runtime.version}",
            "precision": record.runtime.precision,
            "batch_size": record.protocol.batch_size,
            "concurrency": record.protocol.concurrency,
            "rounds": len(record.rounds),
            "package_sha256": package.sha256,
            "weight_bytes": package.weight_bytes,
            **_besides(record),
        },
        "options": {"disable_gc": False, "timer": "perf_counter_ns", "warmup": bool(record.warm_up_ns)},
        "stats": _statistics([nanoseconds / 1e9 for one in samples for nanoseconds in one]),
    }


def _besides(record: LatencyRecord) -> dict[str, Any]:
    """What was measured besides, in ms, mJ and bytes."""
    found: dict[str, Any] = {f"wake_{one.idle_s:g}_s_ms": float(np.median(durations(one))) / 1e6 for one in record.wake}
    found |= {f"energy_{name}_mj": one.value for name, one in energy_mj(record.energy).items()}
    if record.memory is not None:
        found |= record.memory.model_dump()
    if record.cold_loads_ns:
        found["cold_loads_ms"] = [taken / 1e6 for taken in record.cold_loads_ns]
    return found if record.qos is None else found | {"qos": record.qos}


def _statistics(seconds: list[float]) -> dict[str, Any]:
    data = np.sort(seconds)
    mean = float(data.mean())
    deviation = float(data.std(ddof=1)) if len(data) > 1 else 0.0
    # Hazen's quantiles are the ones that pytest-benchmark puts together by case.
    q1, median, q3 = np.quantile(data, [0.25, 0.5, 0.75], method="hazen")
    within = data[(data >= q1 - 1.5 * (q3 - q1)) & (data <= q3 + 1.5 * (q3 - q1))]
    far = int(((data < mean - deviation) | (data > mean + deviation)).sum())
    return {
        "min": float(data[0]),
        "max": float(data[-1]),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(data),
        "median": float(median),
        "iqr": float(q3 - q1),
        "q1": float(q1),
        "q3": float(q3),
        "iqr_outliers": len(data) - len(within),
        "stddev_outliers": far,
        "outliers": f"{far};{len(data) - len(within)}",
        "ld15iqr": float(within[0]),
        "hd15iqr": float(within[-1]),
        "ops": len(data) / float(data.sum()),
        "total": float(data.sum()),
        "data": seconds,
        "iterations": 1,
    }
