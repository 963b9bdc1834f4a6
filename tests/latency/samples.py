"""Latency records made up for tests of what reads them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from coreml_prune_bench.records.accuracy import Network, Provenance, Pruning, Runtime
from coreml_prune_bench.records.latency import (
    Device,
    LatencyRecord,
    MeasuredPackage,
    Placement,
    Protocol,
    Round,
    State,
)


def latency_record(
    rounds: Sequence[Sequence[int]],
    *,
    algorithm: str | None = "sparse-gpt",
    compute_units: str = "all",
    created: str = "2026-01-01",
    model_time: bool = True,
    low_power: bool | None = False,
    thermal: Literal["nominal", "fair", "serious", "critical"] | None = "nominal",
    device: dict[str, object] | None = None,
    runtime: dict[str, object] | None = None,
    protocol: dict[str, object] | None = None,
    planned: dict[str, int] | None = None,
    **changes: object,
) -> LatencyRecord:
    """A measured record with these nanoseconds a round, around the call 1,000 more than of the model.

    algorithm: None for a package that no cell made.
    """
    state = State(thermal=thermal, low_power=low_power)
    network = Network(name="resnet50", title="ResNet50", weights="w", trained=False)
    pruning = Pruning(
        algorithm=algorithm or "", title="t", config="Unstructured Sparsity 50%", sparsity=0.5, scope="s", settings={}
    )
    content = {
        "status": "measured",
        "key": f"{algorithm}{compute_units}{created}",
        "package": MeasuredPackage(
            name="resnet50.mlpackage",
            sha256="0",
            weight_bytes=500,
            package_bytes=550,
            network=network if algorithm else None,
            pruning=pruning if algorithm else None,
        ),
        "device": Device(
            **{
                "name": "Mac14,3", "chip": "Apple M2", "memory_bytes": 2**34, "os": "macOS", "os_version": "15.1",
                "os_build": "24B83", "neural_engine_cores": 16, **(device or {}),
            }
        ),
        "runtime": Runtime(**{"name": "coreml", "version": "9.0", "compute_units": compute_units, **(runtime or {})}),
        "protocol": Protocol(**{"rounds": len(rounds), "predictions": 20, "seconds": 1.0, **(protocol or {})}),
        "provenance": Provenance(
            created=created, host="h", os="o", machine="arm64", cpu_count=8, python="3.11.7", packages={},
            git_commit="abc+", build_seconds=None, evaluate_seconds=None,
        ),
        "cold_load_ns": 9_000_000,
        "cached_load_ns": 3_000_000,
        "placement": Placement(preferred=planned, cost={}) if planned else None,
        "rounds": tuple(
            Round(
                call_ns=tuple(int(sample) + 1000 for sample in one),
                model_ns=tuple(map(int, one)) if model_time else None,
                before=state,
                after=state,
            )
            for one in rounds
        ),
    }  # fmt: skip
    return LatencyRecord.model_validate(content | changes)


def noisy_rounds(median_ns: float, *, rounds: int = 10, samples: int = 21, seed: int = 0) -> list[list[int]]:
    """Rounds of 1 % noise between them and 2 % within."""
    draw = np.random.default_rng(seed)
    levels = median_ns * np.exp(draw.normal(0, 0.01, (rounds, 1)))
    return (levels * np.exp(draw.normal(0, 0.02, (rounds, samples)))).astype(int).tolist()
