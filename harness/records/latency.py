"""A latency record: every raw sample that was taken of one package on one device and choice of compute units.

Statistics are not stored: they follow from the samples. Times are nanoseconds.
"""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from coreml_prune_bench.core.errors import DamagedFileError
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.records.accuracy import Network, Provenance, Pruning, Runtime
from coreml_prune_bench.records.folder import RecordFiles, Warn, read_folder, set_aside
from coreml_prune_bench.records.quantities import Bytes, Count, Nanoseconds, Number, PositiveCount, Seconds
from coreml_prune_bench.records.schemas import Frozen, read_file_as

Besides = Literal["cold", "wake", "energy", "memory"]
"""What can be measured of a package beside the latency of predictions that follow each other."""

IDLE_SECONDS = (0.0, 1.0, 5.0, 30.0)
"""After which waking up is measured: from back to back to an app that predicts now and then."""

ENERGY_COMPONENTS = ("neural_engine", "gpu", "cpu")

ServiceClass = Literal["user-interactive", "user-initiated", "default", "utility", "background"]
"""Apple's classes of service (QoS), by which macOS chooses cores and clock speeds for a thread."""

Thermal = Literal["nominal", "fair", "serious", "critical"]
"""The words of ProcessInfo.thermalState, the coolest first."""


class Device(Frozen):
    """What executed. chip: such as "Apple M2 Pro", or the processor's name. neural_engine_cores: None if unknown."""

    name: str
    chip: str
    memory_bytes: Bytes | None
    os: str
    os_version: str
    os_build: str | None
    neural_engine_cores: Count | None


class State(Frozen):
    """What can slow a device down, at one moment; None where it is not known.

    load_average: of the last minute, over all processors.
    """

    thermal: Thermal | None = None
    low_power: bool | None = None
    on_battery: bool | None = None
    battery_percent: Number | None = None
    load_average: Number | None = None


class Protocol(Frozen):
    """How it was measured. Samples of two protocols are not comparable.

    predictions and seconds: the least of both in a round. concurrency: 1 for one prediction after the other, more for
    so many at a time, each in a process of its own. warm_up_calls: before the first round, None for as many as it takes
    to be steady. array_inputs: images were given as arrays, without Core ML's conversion of an image. qos: the class of
    service that the predicting thread was set to; None: as the system starts a process.
    """

    version: Literal[1] = 1
    rounds: Count
    predictions: Count
    seconds: Seconds
    batch_size: PositiveCount = 1
    concurrency: PositiveCount = 1
    warm_up_calls: Count | None = None
    array_inputs: bool = False
    qos: ServiceClass | None = None

    @property
    def unusual(self) -> tuple[str, ...]:
        """In words, what is not as by default of all that a latency depends on."""
        words = {
            f"batch {self.batch_size}": self.batch_size > 1,
            f"{self.concurrency} at a time": self.concurrency > 1,
            "arrays": self.array_inputs,
            str(self.qos): self.qos is not None,
        }
        return tuple(word for word, holds in words.items() if holds)


_Samples = Annotated[tuple[Nanoseconds, ...], Field(min_length=1)]


class Round(Frozen):
    """One visit to the package, between visits to all others. Samples in the order they were taken.

    call_ns: around the call. model_ns: as the runtime itself says the model took, None where it does not say.
    warm_up_ns: calls at the start of the visit, before the model was steady again.
    """

    call_ns: _Samples
    model_ns: _Samples | None
    before: State
    after: State
    warm_up_ns: tuple[Nanoseconds, ...] = ()


class Wake(Frozen):
    """First predictions after so many seconds without one. model_ns: as of a round."""

    idle_s: Seconds
    call_ns: _Samples
    model_ns: _Samples | None


class EnergyWindow(Frozen):
    """Energy in mJ by one of `ENERGY_COMPONENTS`, over a while of idling and one of predictions."""

    idle_s: Seconds
    idle_mj: dict[str, Number]
    predicting_s: Seconds
    predictions: PositiveCount
    predicting_mj: dict[str, Number]


class Memory(Frozen):
    """The most that a process held at once, beyond what it held with the runtime imported and no model loaded.

    Of macOS its physical footprint, elsewhere what is resident; what the system's own processes hold for the Neural
    Engine is in neither. predict_peak_bytes: while it loaded and predicted.
    """

    load_peak_bytes: Bytes
    predict_peak_bytes: Bytes


class PlannedOperation(Frozen):
    """One operation of a compute plan. name: of its first output. cost: share of the whole program's estimate."""

    name: str
    type: str
    preferred: str
    supported: tuple[str, ...]
    cost: Number | None


class Placement(Frozen):
    """Where the compute plan means each operation to run, constants left out: planned, not observed.

    preferred: device by operation count ("neural_engine", "gpu", "cpu"). cost: share of the estimated cost by device.
    operations: in the program's order.
    """

    preferred: dict[str, Count]
    cost: dict[str, Number]
    operations: tuple[PlannedOperation, ...] = ()


class MeasuredPackage(Frozen):
    """The package. name: for tables. network and pruning: of the cell that it was built for, None for others.

    classes and image_size: of the data that it was built for, None where that is not known.
    """

    name: str
    sha256: str
    weight_bytes: Bytes
    package_bytes: Bytes
    network: Network | None = None
    pruning: Pruning | None = None
    classes: PositiveCount | None = None
    image_size: PositiveCount | None = None


class LatencyRecord(Frozen):
    """One package on one device and choice of compute units: measured, or failed (`reason`).

    key: hash of package, device, runtime and protocol. compile_ns, cold_load_ns, cached_load_ns: None where there is no
    such step. warm_up_ns: calls before the first round, until they were steady. seed: of the order of visits.
    qos: the class of service that the predicting thread was in; None where the system has none. cold_loads_ns: each in
    a process that finds nothing in the system's cache. cold_loads_ns, wake, energy, memory: empty where they were not
    asked for, or cannot be measured. notes: what a reader has to know of this record, in sentences.
    """

    schema_version: Literal[2] = 2
    status: Literal["measured", "failed"]
    reason: str | None = None
    key: str
    package: MeasuredPackage
    device: Device
    runtime: Runtime
    protocol: Protocol
    provenance: Provenance
    compile_ns: Nanoseconds | None = None
    cold_load_ns: Nanoseconds | None = None
    cached_load_ns: Nanoseconds | None = None
    warm_up_ns: tuple[Nanoseconds, ...] = ()
    rounds: tuple[Round, ...] = ()
    placement: Placement | None = None
    qos: str | None = None
    cold_loads_ns: tuple[Nanoseconds, ...] = ()
    wake: tuple[Wake, ...] = ()
    energy: tuple[EnergyWindow, ...] = ()
    memory: Memory | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _holds_what_its_status_says(self) -> Self:
        if self.status == "measured" and not self.rounds:
            raise ValueError("measured, but without rounds")
        return self

    def to_json(self) -> str:
        """Indented JSON in which each round, and each other list of numbers, stands on one line."""
        content = self.model_dump(mode="json")
        long = {name: content.pop(name) for name in ("warm_up_ns", "placement", "wake", "energy", "rounds")}
        rounds = ",\n  ".join(json.dumps(one, separators=(",", ":")) for one in long.pop("rounds"))
        lines = [f' "{name}": {json.dumps(value, separators=(",", ":"))}' for name, value in long.items()]
        text = json.dumps(content, indent=1)[:-2]
        return ",\n".join([text, *lines, f' "rounds": [\n  {rounds}\n ]']) + "\n}\n"

    @property
    def file_name(self) -> str:
        """Readable, and different for every key."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.package.name)
        return f"{name[:80]}--{self.runtime.compute_units}--{self.key[:12]}.json"


def write_latency_record(folder: Path, record: LatencyRecord) -> Path:
    """Write one record into a results folder in one go; returns its path.

    A failed one does not replace one that was measured.
    """
    path = folder / "latency" / record.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    there = latency_record_at(path, record.key)
    if record.status == "measured" or there is None or there.status == "failed":
        write_atomically(path, record.to_json())
    return path


def latency_record_at(path: Path, key: str, warn: Warn = lambda line: None) -> LatencyRecord | None:
    """The record of `key` that stands at `path`; None where there is none.

    A damaged one, and one of another key, is set aside: renamed, and `warn` is told.
    """
    if not os.path.lexists(path):
        return None
    try:
        record = read_latency_record(path)
        if record.key == key:
            return record
        reason = f"{path} holds the record of another row"
    except DamagedFileError as error:
        reason = str(error)
    warn(f"{reason}; set aside as {set_aside(path).name}, to be measured again")
    return None


def read_latency_record(path: Path) -> LatencyRecord:
    """Read one latency record. Raises DamagedFileError for half a file or none, BenchError for a later schema."""
    return read_file_as(LatencyRecord, "latency record", path)


def read_latency_records(folder: Path, warn: Warn | None = None) -> list[LatencyRecord]:
    """Every latency record of a results folder, `folder/latency/*.json`, one a key; none is no error.

    Damaged files and copies are left out, and `warn` is told of each; standard error, if not given.
    """
    files = latency_files(folder)
    files.tell(warn)
    return files.contents


def latency_files(folder: Path) -> RecordFiles[LatencyRecord]:
    """`read_latency_records`, with what was left out."""
    return read_folder(folder / "latency", read_latency_record, lambda record: record, measured_by="latency")
