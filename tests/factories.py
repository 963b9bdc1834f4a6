"""Records made up for tests of what reads them: of accuracy, and of latency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from coreml_prune_bench.records.accuracy import Network, Provenance, Pruning, Record, Runtime
from coreml_prune_bench.records.latency import (
    Device,
    LatencyRecord,
    MeasuredPackage,
    Placement,
    Protocol,
    Round,
    State,
)


def accuracy_record(
    correct: Sequence[bool] | np.ndarray,
    *,
    model: str = "resnet50",
    algorithm: str = "sparse-gpt",
    trial: int = 0,
    weight_bytes: int = 500,
    sparsity: float = 0.5,
    title: str | None = None,
    created: str = "2026-01-01",
    sha256: str | None = None,
    data: dict[str, object] | None = None,
    runtime: dict[str, object] | None = None,
    **changes: object,
) -> Record:
    """A measured record of class 7 throughout, right where `correct` is; the label is in second place elsewhere.

    title: the algorithm's. changes: top-level fields in place of those made up here.
    """
    dense = algorithm == "dense"
    bits = np.asarray(correct, bool)
    content = {
        "status": "measured",
        "key": f"{model}{algorithm}{trial}{created}{(data or {}).get('spec', '')}",
        "config_key": f"{model}{algorithm}{created}",
        "subject_key": model,
        "suite": "s",
        "trial": trial,
        "network": {"name": model, "title": model, "weights": "w", "trained": False},
        "pruning": {
            "algorithm": algorithm,
            "title": title or algorithm,
            "config": "Float16" if dense else "Unstructured Sparsity 50%",
            "sparsity": 0.0 if dense else 0.5,
            "scope": "none" if dense else "conv + linear",
            "settings": {},
        },
        "data": {
            "spec": "imagefolder:x", "split": "val", "fingerprint": "f" * 64, "train_fingerprint": None,
            "classes": 1000, "image_size": 224, **(data or {}),
        },
        "provenance": {
            "created": created, "host": "h", "os": "o", "machine": "m", "cpu_count": 2, "python": "3", "packages": {},
            "git_commit": None, "build_seconds": 1.0, "evaluate_seconds": 1.0, "build_threads": 2, "predict_threads": 2,
        },
        "package": {
            "sha256": sha256 or f"{model}{algorithm}{trial}{created}", "weight_bytes": weight_bytes,
            "package_bytes": weight_bytes + 50, "whole_model_sparsity": 0.0 if dense else sparsity,
            "deployment_target": "iOS17", "operations": {}, "layers": [],
        },
        "runtime": {"name": "portable", "version": "v", "compute_units": "cpu", **(runtime or {})},
        "predictions": {
            "labels": [7] * len(bits),
            "top5": [[7, 1, 2, 3, 4] if right else [1, 7, 2, 3, 4] for right in bits.tolist()],
        },
    }  # fmt: skip
    return Record.model_validate(content | changes)


def failed_record(**changes: object) -> Record:
    """One that could not be measured."""
    return accuracy_record(
        [True],
        status="failed",
        reason="layer x is dense\nTraceback",
        package=None,
        predictions=None,
        runtime=None,
        **changes,
    )


def four_images(
    *, correct: int = 3, algorithm: str = "magnitude-pruner", weight_bytes: int = 500, **changes: object
) -> Record:
    """Four images of ResNet50, `correct` of which are predicted right."""
    title = "n/a" if algorithm == "dense" else "MagnitudePruner"
    network = {"name": "resnet50", "title": "ResNet50", "weights": "w", "trained": False}
    return accuracy_record(
        np.arange(4) < correct,
        algorithm=algorithm,
        title=title,
        weight_bytes=weight_bytes,
        **({"network": network} | changes),  # type: ignore[arg-type]
    )


def four_images_dense(*, weight_bytes: int = 1000, **changes: object) -> Record:
    return four_images(algorithm="dense", correct=4, weight_bytes=weight_bytes, **changes)


def write_records(folder: Path, *records: Record) -> Path:
    """A results folder with these records; returns it."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    for record in records:
        (folder / "records" / f"{record.key}.json").write_text(record.to_json())
    return folder


def latency_record(
    rounds: Sequence[Sequence[int]],
    *,
    algorithm: str | None = "sparse-gpt",
    compute_units: str = "all",
    created: str = "2026-01-01",
    model_time: bool = True,
    call_extra_ns: int = 1000,
    low_power: bool | None = False,
    thermal: Literal["nominal", "fair", "serious", "critical"] | None = "nominal",
    device: dict[str, object] | None = None,
    runtime: dict[str, object] | None = None,
    protocol: dict[str, object] | None = None,
    planned: dict[str, int] | None = None,
    **changes: object,
) -> LatencyRecord:
    """A measured record with these nanoseconds a round, around the call `call_extra_ns` more than of the model.

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
            git_commit="abc+", build_seconds=None, evaluate_seconds=None, build_threads=None, predict_threads=None,
        ),
        "cold_load_ns": 9_000_000,
        "cached_load_ns": 3_000_000,
        "placement": Placement(preferred=planned, cost={}) if planned else None,
        "rounds": tuple(
            Round(
                call_ns=tuple(int(sample) + call_extra_ns for sample in one),
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
