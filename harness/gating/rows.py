"""A baseline's rows: what a gate's tests need of a cell, small enough for git.

One bit an image and trial, and of latencies each round's medians and a few samples.
"""

import json
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field

from coreml_prune_bench.gating.packed import unpacked
from coreml_prune_bench.models.preprocessing import Preprocessing
from coreml_prune_bench.records.accuracy import Runtime
from coreml_prune_bench.records.hits import Bits
from coreml_prune_bench.records.latency import Device, Protocol, Thermal
from coreml_prune_bench.records.quantities import Bytes, Count, Fraction, Number, PositiveCount
from coreml_prune_bench.records.quantities import Nanoseconds as Sample
from coreml_prune_bench.records.schemas import Frozen

_BESIDES = ("wake_ns", "energy_mj", "predict_peak_bytes", "off_share", "image_size", "classes")

Nanoseconds = Annotated[float, Field(gt=0, le=1e18)]


class _Frozen(Frozen):
    model_config = ConfigDict(extra="forbid")


class _Cell(_Frozen):
    """What a row is of. algorithm and config: empty for a package that no cell made, whose model is its name."""

    model: str
    algorithm: str = ""
    config: str = ""


class Images(_Frozen):
    """The images of a row. count: those evaluated. skipped: ids of those that were not.

    view: what of them was looked at; None, and not in the file: as usual.
    """

    spec: str
    split: str
    fingerprint: str
    count: PositiveCount
    skipped: tuple[str, ...] = ()
    view: Preprocessing | None = None


class Trial(_Frozen):
    """One trial. correct: base64 of a bit an image, set if top-1 is the label; the first image is the highest bit.

    package_bytes: of a results folder, not saved, as absolute rules alone look at it.
    """

    correct: str
    sha256: str
    weight_bytes: Bytes
    whole_model_sparsity: Fraction
    package_bytes: Bytes | None = Field(None, exclude=True)


class AccuracyRow(_Cell):
    """Every trial of one cell on one set of images. failed: why trials failed, of a results folder; not saved."""

    suite: str = ""
    images: Images
    runtime: Runtime
    trials: tuple[Trial, ...] = Field(min_length=1)
    failed: tuple[str, ...] = Field(default=(), exclude=True)

    @property
    def correct(self) -> Bits:
        """bool [trials, images]."""
        return np.stack([unpacked(trial.correct, self.images.count) for trial in self.trials])

    @property
    def top1(self) -> float:
        """Mean over trials, a fraction."""
        return float(self.correct.mean())

    @property
    def weight_bytes(self) -> float:
        """Mean over trials."""
        return float(np.mean([trial.weight_bytes for trial in self.trials]))

    @property
    def whole_model_sparsity(self) -> float:
        """Mean over trials, a fraction."""
        return float(np.mean([trial.whole_model_sparsity for trial in self.trials]))


class RoundSummary(_Frozen):
    """One round: how many predictions, and medians around the call and as the runtime says (None if it does not)."""

    predictions: PositiveCount
    call_median_ns: Nanoseconds
    model_median_ns: Nanoseconds | None


class LatencyRow(_Cell):
    """One package on one device and choice of compute units.

    low_power: whether that mode was ever on; None where unknown. thermal: the hottest state that was met. planned:
    operations by preferred device; None without a compute plan. sample: some durations over all rounds, the model's
    where known. wake_ns: of the first prediction after 30 s of idling. energy_mj: of a prediction, in total. off_share:
    the fraction of images that `parity` found off on these units. image_size, classes: of the data that the package was
    built for. None, and not in the file: not measured, or not known.
    """

    sha256: str
    device: Device
    runtime: Runtime
    protocol: Protocol
    low_power: bool | None
    thermal: Thermal | None
    cold_load_ns: Nanoseconds | None
    cached_load_ns: Nanoseconds | None
    planned: dict[str, Count] | None
    rounds: tuple[RoundSummary, ...] = Field(min_length=1)
    sample: tuple[Sample, ...]
    wake_ns: Nanoseconds | None = None
    energy_mj: Number | None = None
    predict_peak_bytes: Bytes | None = None
    off_share: Fraction | None = None
    image_size: PositiveCount | None = None
    classes: PositiveCount | None = None


class Failure(_Frozen):
    """A cell that was tried and could not be measured, not in one trial."""

    kind: Literal["accuracy", "latency"]
    model: str
    algorithm: str
    config: str
    reason: str


class Baseline(_Frozen):
    """Rows to compare with. measured: when the newest was, ISO 8601. failures: of a results folder, not saved."""

    schema_version: Literal[1] = 1
    measured: str
    accuracy: tuple[AccuracyRow, ...] = ()
    latency: tuple[LatencyRow, ...] = ()
    failures: tuple[Failure, ...] = Field(default=(), exclude=True)

    @property
    def models(self) -> set[str]:
        return {row.model for rows in (self.accuracy, self.latency, self.failures) for row in rows}

    def of(self, models: Collection[str]) -> Self:
        """The rows and failures of these networks alone."""
        kept = {
            "accuracy": tuple(row for row in self.accuracy if row.model in models),
            "latency": tuple(row for row in self.latency if row.model in models),
            "failures": tuple(failure for failure in self.failures if failure.model in models),
        }
        return self.model_copy(update=kept)

    def to_json(self) -> str:
        """A row a line, in a fixed order: measuring again what did not change leaves its line as it was."""
        content = self.model_dump(mode="json")
        for row in content["accuracy"]:
            if row["images"]["view"] is None:
                del row["images"]["view"]  # so that versions that know nothing of it read the others
        for row in content["latency"]:
            for name in [name for name in _BESIDES if row[name] is None]:
                del row[name]
        rows = {kind: sorted(map(_compact, content.pop(kind))) for kind in ("accuracy", "latency")}
        head = json.dumps(content, indent=1)[:-2]
        lists = [f' "{kind}": [' + ",".join(f"\n  {line}" for line in lines) + "\n ]" for kind, lines in rows.items()]
        return ",\n".join([head, *lists]) + "\n}\n"


def _compact(row: Any) -> str:
    return json.dumps(row, separators=(",", ":"))
