"""What this project adds to an asset of its own: which input takes pixels, and which constant has which weight.

The file that Apple's converter writes names no weight, and puts constants into an order of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from coreml_prune_bench.aimodel.operations import VALUES
from coreml_prune_bench.aimodel.reader import DEFINED, METADATA, OWN_METADATA, read


class Weight(Protocol):
    """name: what the weight is to be called. elements: as the constant has them. sparse: only those that are kept."""

    @property
    def name(self) -> str: ...
    @property
    def elements(self) -> np.ndarray: ...
    @property
    def sparse(self) -> bool: ...


def add_names(package: Path, image: str, weights: Iterable[Weight]) -> None:
    """Write into the metadata of the asset at `package` which constants have these weights, and leave the time out.

    A weight is found by its elements; of equal ones, the first constant has the first. Raises PackageError where the
    asset cannot be read.
    """
    waiting: dict[tuple[tuple[int, ...], bytes], list[Weight]] = {}
    for weight in weights:
        waiting.setdefault((weight.elements.shape, weight.elements.tobytes()), []).append(weight)
    names: dict[str, str] = {}
    program = read(package)
    for operation in program.operations:
        constant = operation.attributes.get("val") if operation.type == "const" else None
        kind, _, number = operation.name.rpartition("_")
        if constant is None or constant.type.dtype != "fp16" or kind != "constant" or not number.isdecimal():
            continue
        shape = constant.type.fixed_shape
        if not any(shape == known for known, _ in waiting):
            continue
        elements = np.ascontiguousarray(program.weights.array(constant))
        found = waiting.get((shape, elements.tobytes()))
        if found:
            weight = found.pop(0)
            names[number] = weight.name + VALUES * weight.sparse
    file = package / METADATA
    metadata = json.loads(file.read_text())
    metadata.pop("creationDate", None)
    metadata[DEFINED] = {OWN_METADATA: {"image": image, "weights": names}}
    file.write_text(json.dumps(metadata, indent=2, sort_keys=True) + "\n")
