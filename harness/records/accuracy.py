"""A record: what was measured on one package, with everything that is needed to judge it and to derive it again.

Statistics are not stored: they follow from the per-image predictions.
"""

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from coreml_prune_bench.models.preprocessing import USUAL, Preprocessing
from coreml_prune_bench.records.folder import Warn, read_folder, refuse_nothing
from coreml_prune_bench.records.predictions import Precision, Predictions
from coreml_prune_bench.records.quantities import Bytes, Count, Fraction, PositiveCount, Seconds
from coreml_prune_bench.records.schemas import Frozen, read_file_as

CORE_ML = "mlpackage"
"""The package format of records that name none."""
GIVEN = "as given"
"""The weights of a package that nobody built here."""


class Network(Frozen):
    """name: the identifier. title: as in tables. weights: their fingerprint. trained: whether a run trained it.

    spec: as `--model` names it, for a network that the user brought.
    """

    name: str
    title: str
    weights: str
    trained: bool
    spec: str | None = None


class Pruning(Frozen):
    """algorithm: identifier, "dense" for the baseline. config: in words. settings: the typed config, whole.

    sparsity: the fraction of zeros asked of each pruned layer; 0 for the baseline, None where none was asked (a
    threshold, or layers with targets of their own). scope: the pruned layers in words.
    """

    algorithm: str
    title: str
    config: str
    sparsity: Fraction | None
    scope: str
    settings: dict[str, Any]

    @field_validator("settings")
    @classmethod
    def _asks_for_a_sparsity(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Of what follows from the config, tables take the sparsity."""
        asked = settings.get("sparsity")
        if asked is None and settings.get("allocation", "uniform") == "uniform":
            return settings
        if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 <= asked <= 1:
            raise ValueError("sparsity is no number from 0 to 1")
        return settings


class Layer(Frozen):
    """A pruned layer: its target (None: no target) and the sparsity found in the saved package."""

    name: str
    target: Fraction | None
    sparsity: Fraction
    storage: str


class Package(Frozen):
    """The measured package, read back from disk. Sizes in bytes; sparsities are fractions.

    path: below the results folder; None for a package that is no part of it, and where a version before this field
    wrote the record.
    """

    sha256: str
    weight_bytes: Bytes
    package_bytes: Bytes
    whole_model_sparsity: Fraction
    deployment_target: str
    operations: dict[str, Count]
    layers: tuple[Layer, ...]
    path: str | None = None


class Data(Frozen):
    """The images that were evaluated: fingerprint of the split, its classes, ids of the images skipped as bad.

    train_fingerprint and train_skipped are those of the training images, where any were used. revision: the commit of a
    data set on a hub. preprocessing: how images came to be what the package takes.
    place: stands for the folder that spec names, however it is spelled, where it was measured.
    """

    spec: str
    split: str
    fingerprint: str
    train_fingerprint: str | None
    classes: PositiveCount
    image_size: PositiveCount
    preprocessing: Preprocessing = USUAL
    skipped: tuple[str, ...] = ()
    train_skipped: tuple[str, ...] = ()
    revision: str | None = None
    place: str | None = None


class Runtime(Frozen):
    """What executed the package, and how."""

    name: Literal["portable", "coreml", "coreai"]
    version: str
    precision: Precision = "float32"
    compute_units: str


class Provenance(Frozen):
    """Where, when and with what a record was made. git_commit ends in "+" if code had changed since.

    It is that of the project's own checkout, None where the project was installed: `packages` has its version.
    trained_on: the devices of the trainings behind it, and of prunings with images, in words; empty without any.
    build_threads: of torch on the CPU, where the package was pruned and converted. predict_threads: of the portable
    runtime. None where there was no such step, Core ML predicted, or a version before this field wrote the record.
    """

    created: str
    host: str
    os: str
    machine: str
    cpu_count: PositiveCount
    python: str
    packages: dict[str, str]
    git_commit: str | None
    build_seconds: Seconds | None
    evaluate_seconds: Seconds | None
    trained_on: tuple[str, ...] = ()
    build_threads: PositiveCount | None
    predict_threads: PositiveCount | None


class Record(Frozen):
    """One measured cell, or one that failed (`reason`), in which case what was not reached is None.

    key: hash of everything the result depends on. config_key: the same without the trial. subject_key: shared by the
    records of one network on one data set. row: its place among the rows of the suite as it was run; None for
    what is of no suite, and where a version before 0.2 wrote it. code: the hash of each module that the result depends
    on; empty where a version before schema 2 wrote it. package_format: what the package is, "mlpackage" where none is
    named.
    """

    schema_version: Literal[4] = 4
    status: Literal["measured", "failed"]
    reason: str | None = None
    key: str
    config_key: str
    subject_key: str
    suite: str
    trial: Count
    row: Count | None = None
    package_format: str = CORE_ML
    network: Network
    pruning: Pruning
    data: Data
    provenance: Provenance
    package: Package | None = None
    runtime: Runtime | None = None
    predictions: Predictions | None = None
    code: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _holds_what_its_status_says(self) -> Self:
        parts = {"package": self.package, "runtime": self.runtime, "predictions": self.predictions}
        missing = [name for name, part in parts.items() if part is None]
        if self.status == "measured" and missing:
            raise ValueError(f"measured, but without {' and '.join(missing)}")
        if self.status == "failed" and self.predictions is not None:
            raise ValueError("failed, but with predictions")
        return self

    @property
    def config(self) -> str:
        """The config in words that tell one row from another: with the format where that is not Core ML's."""
        told = "" if self.package_format == CORE_ML else f", .{self.package_format}"
        return f"{self.pruning.config}{told}"

    @property
    def brief_reason(self) -> str:
        """Why it failed, in a line: a bug's reason goes on with its traceback."""
        return (self.reason or "no reason").splitlines()[0]

    def to_json(self) -> str:
        """Indented JSON in which each list of numbers stands on one line: readable, and a third of the size."""
        content = self.model_dump(mode="json")
        long = {name: content.pop(name) for name in ("code", "predictions")}
        lines = [f' "{name}": {json.dumps(value, separators=(",", ":"))}' for name, value in long.items()]
        return ",\n".join([json.dumps(content, indent=1)[:-2], *lines]) + "\n}\n"


def read_record(path: Path) -> Record:
    """Read one record. Raises DamagedFileError for half a file or no record at all, BenchError for a later schema."""
    return read_file_as(Record, "record", path)


def read_records(folder: Path, warn: Warn | None = None) -> list[Record]:
    """Every record of a results folder, one a key. Damaged files and copies are left out, and `warn` is told of each.

    warn: standard error, if not given. Raises BenchError if there is no record.
    """
    files = read_folder(folder / "records", read_record, lambda record: record, measured_by="run")
    refuse_nothing(
        [files], f"no records in {folder}: expected a results folder with records/*.json, made by `run`", folder
    )
    files.tell(warn)
    return files.contents
