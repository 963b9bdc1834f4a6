"""A latency record: every raw sample that was taken of one package on one device and choice of compute units.

Statistics are not stored: they follow from the samples. Times are nanoseconds.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import BenchError
from harness.records import Network, Provenance, Pruning, Runtime

SCHEMA_VERSION = 1


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

    thermal: the operating system's four words. load_average: of the last minute, over all processors.
    """

    thermal: Literal["nominal", "fair", "serious", "critical"] | None = None
    low_power: bool | None = None
    on_battery: bool | None = None
    battery_percent: float | None = None
    load_average: float | None = None


class Protocol(_Frozen):
    """How it was measured. Samples of two protocols are not comparable.

    predictions and seconds: the least of both in a round. concurrency: 1 for one prediction after the other, more for
    so many asynchronous ones at a time.
    """

    version: Literal[1] = 1
    rounds: int
    predictions: int
    seconds: float
    batch_size: int = 1
    concurrency: int = 1


class Round(_Frozen):
    """One visit to the package, between visits to all others. Samples in the order they were taken.

    call_ns: around the call. model_ns: as the runtime itself says the model took, None where it does not say.
    """

    call_ns: tuple[int, ...]
    model_ns: tuple[int, ...] | None
    before: State
    after: State


class Placement(_Frozen):
    """Where the compute plan means each operation to run, constants left out: planned, not observed.

    preferred: device by operation count ("neural_engine", "gpu", "cpu"). cost: share of the estimated cost by device.
    """

    preferred: dict[str, int]
    cost: dict[str, float]


class MeasuredPackage(_Frozen):
    """The package. name: for tables. network and pruning: of the cell that it was built for, None for others."""

    name: str
    sha256: str
    weight_bytes: int
    package_bytes: int
    network: Network | None = None
    pruning: Pruning | None = None


class LatencyRecord(_Frozen):
    """One package on one device and choice of compute units: measured, or failed (`reason`).

    key: hash of package, device, runtime and protocol. compile_ns, cold_load_ns, cached_load_ns: None where there is no
    such step. warm_up_ns: calls before the first round, until they were steady.
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


def read_latency_record(path: Path) -> LatencyRecord:
    """Read one latency record. Raises BenchError for half a file, another schema or no record at all."""
    try:
        return LatencyRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise BenchError(
            f"{path} is not a latency record of schema {SCHEMA_VERSION}: {place} {problem['msg']}".strip()
        ) from error


def read_latency_records(folder: Path) -> list[LatencyRecord]:
    """Every latency record of a results folder, `folder/latency/*.json`; none is no error."""
    return [read_latency_record(path) for path in sorted((folder / "latency").glob("*.json"))]
