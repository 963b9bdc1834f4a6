"""Accuracy records made up for tests of baselines and gates."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coreml_prune_bench.records.accuracy import Record


def accuracy_record(
    correct: Sequence[bool] | np.ndarray,
    *,
    model: str = "resnet50",
    algorithm: str = "sparse-gpt",
    trial: int = 0,
    weight_bytes: int = 500,
    sparsity: float = 0.5,
    created: str = "2026-01-01",
    sha256: str | None = None,
    data: dict[str, object] | None = None,
    runtime: dict[str, object] | None = None,
    **changes: object,
) -> Record:
    """A measured record of class 7 throughout, right where `correct` is; the label is in second place elsewhere."""
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
            "title": algorithm,
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
            "git_commit": None, "build_seconds": 1.0, "evaluate_seconds": 1.0,
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


def bits(lost: int = 0, gained: int = 0, images: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of predictions, 80 % of the images right in both, of which so many are lost and gained."""
    baseline = np.arange(images) < 0.8 * images
    run = baseline.copy()
    run[:lost] = False
    run[images - gained :] = True
    return baseline, run


def write_records(folder: Path, *records: Record) -> Path:
    """A results folder with these records; returns it."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    for record in records:
        (folder / "records" / f"{record.key}.json").write_text(record.to_json())
    return folder
