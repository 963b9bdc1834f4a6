"""What `parity` found of a package on one choice of compute units, image by image."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from coreml_prune_bench.core.errors import DamagedFileError
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.core.keys import key_of
from coreml_prune_bench.records.accuracy import Provenance, Runtime
from coreml_prune_bench.records.folder import Warn, on_standard_error
from coreml_prune_bench.records.latency import Device
from coreml_prune_bench.records.schemas import Frozen, read_file_as

_FACTOR, _CORE_AI_FACTOR = 4.0, 32.0


class ParityRecord(Frozen):
    """Core ML or Core AI on one choice of compute units, and the portable runtime, on the same images.

    top1: by image the best class of each; labels: the true ones. largest_error, score_range: by image, the largest
    difference of a score between the two, and the span of the portable runtime's scores, in the unit of the scores
    (logits, or probabilities of a classifier). rounding_error: by image, what rounding to Float16 alone makes of a
    score: the portable runtime in Float16 beside itself in Float32, or Float32's own where that is less; empty where
    a version before 0.2 wrote it.
    """

    model_config = ConfigDict(allow_inf_nan=True)

    schema_version: Literal[1] = 1
    package: str
    sha256: str
    data: str
    fingerprint: str
    device: Device
    runtimes: tuple[Runtime, Runtime]
    provenance: Provenance
    labels: tuple[int, ...]
    top1: tuple[tuple[int, ...], tuple[int, ...]]
    largest_error: tuple[float, ...]
    score_range: tuple[float, ...]
    rounding_error: tuple[float, ...] = ()

    def to_json(self) -> str:
        """Indented JSON in which each list stands on one line."""
        content = self.model_dump(mode="json")
        names = ("labels", "top1", "largest_error", "score_range", "rounding_error")
        lists = {name: content.pop(name) for name in names}
        lines = [f' "{name}": {json.dumps(value, separators=(",", ":"))}' for name, value in lists.items()]
        return ",\n".join([json.dumps(content, indent=1)[:-2], *lines]) + "\n}\n"


def factor_of(runtime: str) -> float:
    """How many times further off than what rounding to Float16 makes an image may be in that runtime.

    Units may add in another order and round in other places than the portable runtime does. Core AI's for the processor
    adds up in Float16: on ResNet50, whose sums are the longest, errors of images are 13 times what rounding the results
    makes in the median and 32 times at most, and every class is the same.
    """
    return _CORE_AI_FACTOR if runtime == "coreai" else _FACTOR


def usual_rounding(rounding_error: Sequence[float]) -> NDArray[np.float64]:
    """By image, what rounding to Float16 makes of a score; of one that it hardly touches, what it does to a typical."""
    rounding = np.array(rounding_error)
    return np.maximum(rounding, np.median(rounding))


def off_images(largest_error: Sequence[float], rounding_error: Sequence[float], factor: float) -> int:
    """How many images are further off than `factor` times what rounding to Float16 makes; not a number is off."""
    return int((~(np.array(largest_error) <= factor * usual_rounding(rounding_error))).sum())


def off_share(record: ParityRecord) -> float | None:
    """The fraction of images that are off; None for a record of before 0.2."""
    if not record.rounding_error:
        return None
    factor = factor_of(record.runtimes[0].name)
    return off_images(record.largest_error, record.rounding_error, factor) / len(record.labels)


def write_parity_record(results: Path, record: ParityRecord) -> Path:
    """Write a record into RESULTS/parity in one go; returns its path.

    It replaces one of the same package, device, runtimes and images.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(record.package).stem)[:80]
    of = key_of(
        {
            "device": (record.device.name, record.device.chip),
            "runtimes": [(one.name, one.precision) for one in record.runtimes],
            "images": (record.fingerprint, len(record.labels)),
        }
    )
    name = f"{readable}--{record.runtimes[0].compute_units}--{record.sha256[:12]}--{of[:8]}.json"
    path = results / "parity" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, record.to_json())
    return path


def read_parity_records(results: Path, warn: Warn = on_standard_error) -> list[ParityRecord]:
    """Those of a results folder, the oldest first. Damaged ones are left out, and `warn` is told of each."""
    found = []
    for path in sorted((results / "parity").glob("[!.]*.json")):
        try:
            found.append(read_file_as(ParityRecord, "parity record", path))
        except DamagedFileError as error:
            warn(f"{error}; left out")
    return sorted(found, key=lambda record: record.provenance.created)
