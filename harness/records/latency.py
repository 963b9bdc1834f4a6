"""A latency record: every raw sample that was taken of one package on one device and choice of compute units.

Statistics are not stored: they follow from the samples. Times are nanoseconds.
"""

import json
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from coreml_prune_bench.core.files import json_files, write_atomically
from coreml_prune_bench.records.accuracy import Network, Provenance, Pruning, Runtime
from coreml_prune_bench.records.schemas import read_as

Thermal = Literal["nominal", "fair", "serious", "critical"]
"""The words of ProcessInfo.thermalState, the coolest first."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Device(_Frozen):
    """What executed. chip: such as "Apple M2 Pro", or the processor's name. neural_engine_cores: None if unknown."""

    name: str
    chip: str
    memory_bytes: int | None
    os: str
    os_version: str
    os_build: str | None
    neural_engine_cores: int | None


class State(_Frozen):
    """What can slow a device down, at one moment; None where it is not known.

    load_average: of the last minute, over all processors.
    """

    thermal: Thermal | None = None
    low_power: bool | None = None
    on_battery: bool | None = None
    battery_percent: float | None = None
    load_average: float | None = None


class Protocol(_Frozen):
    """How it was measured. Samples of two protocols are not comparable.

    predictions and seconds: the least of both in a round. concurrency: 1 for one prediction after the other, more for
    so many at a time, each in a process of its own. warm_up_calls: before the first round, None for as many as it takes
    to be steady. array_inputs: images were given as arrays, without Core ML's conversion of an image.
    """

    version: Literal[1] = 1
    rounds: int
    predictions: int
    seconds: float
    batch_size: int = 1
    concurrency: int = 1
    warm_up_calls: int | None = None
    array_inputs: bool = False


class Round(_Frozen):
    """One visit to the package, between visits to all others. Samples in the order they were taken.

    call_ns: around the call. model_ns: as the runtime itself says the model took, None where it does not say.
    warm_up_ns: calls at the start of the visit, before the model was steady again.
    """

    call_ns: tuple[int, ...]
    model_ns: tuple[int, ...] | None
    before: State
    after: State
    warm_up_ns: tuple[int, ...] = ()


class PlannedOperation(_Frozen):
    """One operation of a compute plan. name: of its first output. cost: share of the whole program's estimate."""

    name: str
    type: str
    preferred: str
    supported: tuple[str, ...]
    cost: float | None


class Placement(_Frozen):
    """Where the compute plan means each operation to run, constants left out: planned, not observed.

    preferred: device by operation count ("neural_engine", "gpu", "cpu"). cost: share of the estimated cost by device.
    operations: in the program's order.
    """

    preferred: dict[str, int]
    cost: dict[str, float]
    operations: tuple[PlannedOperation, ...] = ()


class MeasuredPackage(_Frozen):
    """The package. name: for tables. network and pruning: of the cell that it was built for, None for others.

    classes and image_size: of the data that it was built for, None where that is not known.
    """

    name: str
    sha256: str
    weight_bytes: int
    package_bytes: int
    network: Network | None = None
    pruning: Pruning | None = None
    classes: int | None = None
    image_size: int | None = None


class LatencyRecord(_Frozen):
    """One package on one device and choice of compute units: measured, or failed (`reason`).

    key: hash of package, device, runtime and protocol. compile_ns, cold_load_ns, cached_load_ns: None where there is no
    such step. warm_up_ns: calls before the first round, until they were steady. seed: of the order of visits.
    notes: what a reader has to know of this record, in sentences.
    """

    schema_version: Literal[1] = 1
    status: Literal["measured", "failed"]
    reason: str | None = None
    key: str
    package: MeasuredPackage
    device: Device
    runtime: Runtime
    protocol: Protocol
    provenance: Provenance
    compile_ns: int | None = None
    cold_load_ns: int | None = None
    cached_load_ns: int | None = None
    warm_up_ns: tuple[int, ...] = ()
    rounds: tuple[Round, ...] = ()
    placement: Placement | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Indented JSON in which each round, and each other list of numbers, stands on one line."""
        content = self.model_dump(mode="json")
        long = {name: content.pop(name) for name in ("warm_up_ns", "placement", "rounds")}
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
    if record.status == "measured" or not path.is_file() or read_latency_record(path).status == "failed":
        write_atomically(path, record.to_json())
    return path


def read_latency_record(path: Path) -> LatencyRecord:
    """Read one latency record. Raises BenchError for half a file, another schema or no record at all."""
    return read_as(LatencyRecord, "latency record", path.read_bytes(), str(path))


def read_latency_records(folder: Path) -> list[LatencyRecord]:
    """Every latency record of a results folder, `folder/latency/*.json`; none is no error."""
    return [read_latency_record(path) for path in json_files(folder / "latency")]
