"""Latency records for tests, without measuring anything."""

from collections.abc import Sequence
from typing import Any

from coreml_prune_bench.records.latency import (
    LatencyRecord,
    MeasuredPackage,
    Protocol,
    Round,
    State,
)
from coreml_prune_bench.records.provenance import provenance
from tests.factories import latency_record
from tests.latency.sessions import COOL, MAC, network_of, runtime

ONE_RUN = provenance()


def record(*rounds: Sequence[float], name: str = "p", algorithm: str | None = None, **fields: Any) -> LatencyRecord:
    """Of samples in milliseconds; calls take 0.1 ms more than the model. algorithm: as a package of a suite."""
    package = MeasuredPackage(name=name, sha256=name, weight_bytes=1000, package_bytes=2000)
    given: dict[str, Any] = {
        "key": f"{name} {algorithm}",
        "package": network_of(package, algorithm) if algorithm else package,
        "device": MAC,
        "runtime": runtime("all"),
        "protocol": Protocol(rounds=len(rounds), predictions=2, seconds=1),
        "provenance": ONE_RUN,
        "rounds": tuple(one_round(samples) for samples in rounds),
        "compile_ns": 210_000_000,
        "cold_load_ns": 3_000_000_000,
        "cached_load_ns": 42_000_000,
    }
    return latency_record([[1]]).model_copy(update=given | fields)


def one_round(samples: Sequence[float], *, before: State = COOL, after: State = COOL, told: bool = True) -> Round:
    model = tuple(round(1e6 * sample) for sample in samples)
    calls = tuple(sample + 100_000 for sample in model)
    return Round(call_ns=calls, model_ns=model if told else None, before=before, after=after)
