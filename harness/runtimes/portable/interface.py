"""What a session needs to know of a translated program beside its ONNX model, and how that stands in a file.

It must import neither onnx nor coremltools: a session that comes out of the cache needs neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from coreml_prune_bench.mlprogram.program import Feature

MODEL_FILE = "model.onnx"
INTERFACE_FILE = "interface.json"


@dataclass(frozen=True)
class Classifier:
    """A program that ends in a label and a dictionary: both are made from the scores [.., classes] after the run."""

    label: str
    probabilities: str
    classes: tuple[str | int, ...]


@dataclass(frozen=True)
class Interface:
    """`inputs`, `outputs` and `states` as the package declares them, `results` the names that the program returns.

    `any_batch`: the leading dimension of every input and output of the ONNX model is symbolic. Otherwise it is as
    declared, 1. `output_names` gives the ONNX name of each result. Each state is an input of its own name, and an
    output of the name that `state_names` gives. `time_varies`: it has branches or loops, whose time depends on values.
    """

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    results: tuple[str, ...]
    any_batch: bool
    output_names: Mapping[str, str]
    state_names: Mapping[str, str]
    classifier: Classifier | None
    time_varies: bool

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Interface:
        """Raises ValueError, TypeError or LookupError where `text` is not what `to_json` writes."""
        fields = {name: _tuples(value) for name, value in json.loads(text).items()}
        for name in ("inputs", "outputs", "states"):
            fields[name] = tuple(Feature(**feature) for feature in fields[name])
        if fields["classifier"] is not None:
            fields["classifier"] = Classifier(**fields["classifier"])
        return cls(**fields)


def _tuples(value: Any) -> Any:
    """JSON knows lists only."""
    if isinstance(value, list):
        return tuple(_tuples(member) for member in value)
    return {name: _tuples(member) for name, member in value.items()} if isinstance(value, dict) else value
