"""A record: what was measured on one package, with everything that is needed to judge it and to derive it again.

Statistics are not stored: they follow from the per-image predictions.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from coreml_prune_bench.core.errors import BenchError

SCHEMA_VERSION = 1

Precision = Literal["float32", "float16"]
"""What the portable runtime computes in: Float32 throughout, or every Float16 result of the program rounded to it."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Network(_Frozen):
    """name: the identifier. title: as in tables. weights: their fingerprint. trained: whether a run trained it.

    spec: as `--model` names it, for a network that the user brought.
    """

    name: str
    title: str
    weights: str
    trained: bool
    spec: str | None = None


class Pruning(_Frozen):
    """algorithm: identifier, "dense" for the baseline. config: in words. settings: the typed config, whole.

    sparsity: the fraction of zeros asked of each pruned layer; 0 for the baseline, None where none was asked (a
    threshold, or layers with targets of their own). scope: the pruned layers in words.
    """

    algorithm: str
    title: str
    config: str
    sparsity: float | None
    scope: str
    settings: dict[str, Any]


class Layer(_Frozen):
    """A pruned layer: its target (None: no target) and the sparsity found in the saved package."""

    name: str
    target: float | None
    sparsity: float
    storage: str


class Package(_Frozen):
    """The measured package, read back from disk. Sizes in bytes; sparsities are fractions."""

    sha256: str
    weight_bytes: int
    package_bytes: int
    whole_model_sparsity: float
    deployment_target: str
    operations: dict[str, int]
    layers: tuple[Layer, ...]


class Data(_Frozen):
    """The images that were evaluated: fingerprint of the split, its classes, ids of the images skipped as bad.

    train_fingerprint and train_skipped are those of the training images, where any were used.
    """

    spec: str
    split: str
    fingerprint: str
    train_fingerprint: str | None
    classes: int
    image_size: int
    skipped: tuple[str, ...] = ()
    train_skipped: tuple[str, ...] = ()


class Predictions(_Frozen):
    """By image, in the split's order without those skipped: the label, and the five highest classes, best first."""

    labels: tuple[int, ...]
    top5: tuple[tuple[int, ...], ...]

    @property
    def top1(self) -> float:
        """Fraction of images whose best class is the label."""
        return self._hits(1)

    @property
    def top5_accuracy(self) -> float:
        """Fraction of images whose label is among the five best."""
        return self._hits(5)

    def _hits(self, k: int) -> float:
        return sum(label in top[:k] for label, top in zip(self.labels, self.top5, strict=True)) / len(self.labels)


class Runtime(_Frozen):
    """What executed the package, and how."""

    name: Literal["portable", "coreml"]
    version: str
    precision: Precision = "float32"
    compute_units: str


class Provenance(_Frozen):
    """Where, when and with what a record was made. git_commit ends in "+" if code had changed since.

    It is that of the project's own checkout, None where the project was installed: `packages` has its version.
    trained_on: the devices of the trainings behind it, in words; empty where there were none.
    """

    created: str
    host: str
    os: str
    machine: str
    cpu_count: int
    python: str
    packages: dict[str, str]
    git_commit: str | None
    build_seconds: float | None
    evaluate_seconds: float | None
    trained_on: tuple[str, ...] = ()


class Record(_Frozen):
    """One measured cell, or one that failed (`reason`), in which case what was not reached is None.

    key: hash of everything the result depends on. config_key: the same without the trial. subject_key: shared by the
    records of one network on one data set.
    """

    schema_version: Literal[1] = 1
    status: Literal["measured", "failed"]
    reason: str | None = None
    key: str
    config_key: str
    subject_key: str
    suite: str
    trial: int
    network: Network
    pruning: Pruning
    data: Data
    provenance: Provenance
    package: Package | None = None
    runtime: Runtime | None = None
    predictions: Predictions | None = None

    @property
    def brief_reason(self) -> str:
        """Why it failed, in a line: a bug's reason goes on with its traceback."""
        return (self.reason or "no reason").splitlines()[0]

    def to_json(self) -> str:
        """Indented JSON in which each list of numbers stands on one line: readable, and a third of the size."""
        content = self.model_dump(mode="json")
        predictions = content.pop("predictions")
        text = json.dumps(content, indent=1)
        compact = json.dumps(predictions, separators=(",", ":"))
        return f'{text[:-2]},\n "predictions": {compact}\n}}\n'


def read_record(path: Path) -> Record:
    """Read one record. Raises BenchError for half a file, another schema or no record at all."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise BenchError(
            f"{path} is not a record of schema {SCHEMA_VERSION}: {place} {problem['msg']}".strip()
        ) from error


def read_records(folder: Path) -> list[Record]:
    """Every record of a results folder. Raises BenchError if there is none."""
    records = [read_record(path) for path in sorted((folder / "records").glob("*.json"))]
    if not records:
        raise BenchError(f"no records in {folder}: expected a results folder with records/*.json, made by `run`")
    return records
