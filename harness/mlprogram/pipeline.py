"""A pipeline of ML programs and non-maximum suppressions as one `Program`, which does what they do in turn.

Models hand values on by the names of their features. Between two of them stands an operation `feature`, which does what
handing over means: Float16 is rounded, pixels are bytes. Suppression is an operation `nonMaximumSuppression`.
Definitions: mlmodel/format/Model.proto and NonMaximumSuppression.proto of coremltools.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.features import check_name, read_feature, read_input
from coreml_prune_bench.mlprogram.program import Block, Feature, Operation, Program, renamed
from coreml_prune_bench.mlprogram.values import (
    MIL_TO_NUMPY,
    Argument,
    Constant,
    Immediate,
    NamedType,
    Reference,
    TensorType,
)
from coreml_prune_bench.mlprogram.weights import Weights

MAIN = "main"
"""The function of a pipeline, and of an ML program that has one."""

_NO_OPSET = "CoreML5"
"""Of a program without an ML program in it: no operation asks."""
_COLOURS = ("RGB", "BGR")


# --- joining


@dataclass(frozen=True)
class _Given:
    """What stands for a feature: the value's name, and how who made it declares it."""

    name: str
    feature: Feature


def pipeline_inputs(package: Path, description: Any) -> tuple[Feature, ...]:
    """What a pipeline takes: images, arrays, and numbers that override a suppression's thresholds."""
    return tuple(
        Feature(feature.name, "array", (), "float64")
        if feature.type.WhichOneof("Type") == "doubleType"
        else read_input(package, feature, description)
        for feature in description.input
    )


def joined(package: Path, spec: Any, inputs: Sequence[Feature], parts: Sequence[Program], weights: Weights) -> Program:
    """The models `parts` one after the other. Raises PackageError where one takes what none before it gives."""
    joint = _Joint(package, inputs, {feature.name for feature in spec.description.output})
    for position, part in enumerate(parts):
        made_later = {name for later in parts[position + 1 :] for name in later.results}
        joint.append(position, part, made_later)
    defaults: dict[str, float] = {}
    for part in parts:
        for feature in part.inputs:
            if feature.default is not None and defaults.setdefault(feature.name, feature.default) != feature.default:
                raise PackageError(f"{package}: {feature.name!r} overrides thresholds that differ")
    return Program(
        package=package,
        function=MAIN,
        functions=(MAIN,),
        specification_version=spec.specificationVersion,
        opset=next((part.opset for part in parts if part.operations), _NO_OPSET),
        inputs=tuple(replace(f, default=defaults.get(f.name)) if f.shape == () else f for f in inputs),
        outputs=tuple(joint.output(feature, spec.description) for feature in spec.description.output),
        states=(),
        arguments=tuple(joint.arguments.values()),
        operations=tuple(joint.operations),
        results=tuple(dict.fromkeys(feature.name for feature in spec.description.output)),
        weights=weights,
    )


class _Joint:
    """The program so far, and what is given by which name."""

    def __init__(self, package: Path, inputs: Sequence[Feature], outputs: Set[str]) -> None:
        self.arguments: dict[str, NamedType] = {}
        self.operations: list[Operation] = []
        self._package = package
        self._inputs = {feature.name for feature in inputs}
        self._outputs = outputs - self._inputs
        self._taken = self._inputs | outputs
        self._given = {feature.name: _Given(feature.name, feature) for feature in inputs}

    def append(self, position: int, part: Program, made_later: Set[str]) -> None:
        if part.states:
            raise PackageError(f"{self._package}: model {position + 1} of its pipeline has states, which are not run")
        declared = {feature.name: feature for feature in part.inputs}
        values: dict[str, str] = {}
        for argument in part.arguments:
            if argument.name not in declared or argument.name not in self._given:
                raise PackageError(
                    f"{self._package}: model {position + 1} of its pipeline takes {argument.name!r}, which is not given"
                )
            values[argument.name] = self._handed_over(position, argument, declared[argument.name])
        final = (self._outputs - made_later) & set(part.results)
        for name in Block((), part.operations, ()).defined():
            values[name] = name if name in final else self._free(position, name)
        self.operations += [renamed(operation, values, part.opset) for operation in part.operations]
        made = {feature.name: feature for feature in part.outputs}
        for name in part.results:
            if name in made:
                self._given[name] = _Given(values.get(name, name), made[name])

    def output(self, feature: Any, description: Any) -> Feature:
        """How the pipeline's output is declared. A label is only so by the model that gives it."""
        given = self._given.get(feature.name)
        if given is None or given.name != feature.name or feature.name in self._inputs:
            raise PackageError(f"{self._package}: its output {feature.name!r} is given by none of its models")
        return given.feature if given.feature.kind not in _VALUES else read_feature(self._package, feature, description)

    def _free(self, position: int, name: str) -> str:
        """A name that nothing has yet: two slashes are in none of MIL's names and in none that a translation makes."""
        free = f"{position}//{name}" if name in self._taken else name
        self._taken.add(free)
        return free

    def _handed_over(self, position: int, argument: NamedType, taken: Feature) -> str:
        """What the model's argument is called: the pipeline's own input, or what `feature` makes of a value."""
        given = self._given[argument.name]
        if argument.type.kind != "tensor" or (why := _unfit(given.feature, taken)):
            why = why if argument.type.kind == "tensor" else f"is a {argument.type.kind}"
            raise PackageError(f"{self._package}: model {position + 1} of its pipeline: its input {taken.name!r} {why}")
        if given.name in self._inputs and given.name not in self.arguments:
            self.arguments[given.name] = NamedType(given.name, argument.type)
            return given.name
        name = self._free(position, argument.name)
        is_image = taken.kind == "image" and taken.dtype == "uint8"
        attributes = {
            "half": _number("bool", taken.dtype == "float16"),
            "pixels": _number("bool", is_image),
            "reversed": _number("bool", is_image and given.feature.color_space != taken.color_space),
        }
        value = {"x": (Reference(given.name),)}
        self.operations.append(Operation("feature", name, value, attributes, (NamedType(name, argument.type),)))
        return name


_VALUES = ("image", "array")


def _unfit(given: Feature, taken: Feature) -> str:
    """Why a model cannot take what is given; "" where it can."""
    if given.kind != taken.kind or given.kind not in _VALUES:
        return f"is declared as {taken.kind}, and what is given as {given.kind}"
    colours = {given.color_space, taken.color_space}
    if len(colours) > 1 and not colours <= set(_COLOURS):
        return f"is an image of {taken.color_space}, and what is given of {given.color_space}"
    if (np.dtype(given.dtype).kind == "f") is not (np.dtype(taken.dtype).kind == "f"):
        return f"is declared as {taken.dtype}, and what is given as {given.dtype}"
    # No shape says nothing of an array.
    if not given.shape or not taken.shape:
        return ""
    if len(given.shape) != len(taken.shape) or any(
        None not in sizes and len(set(sizes)) > 1 for sizes in zip(given.shape, taken.shape, strict=True)
    ):
        return f"has {taken.expected_shape()}, and what is given {given.expected_shape()}"
    return ""


# --- non-maximum suppression


def suppression(package: Path, spec: Any, known: Set[str]) -> Program:
    """A model that leaves of the boxes that overlap the best one. `known`: the features that are given before it.

    Raises PackageError where it cannot be run.
    """
    model, description = spec.nonMaximumSuppression, spec.description
    taken = [model.confidenceInputFeatureName, model.coordinatesInputFeatureName]
    results = (model.confidenceOutputFeatureName, model.coordinatesOutputFeatureName)
    for name in (*taken, *results):
        check_name(package, name)
    if model.WhichOneof("SuppressionMethod") not in ("pickTop", None):
        raise PackageError(f"{package}: its non-maximum suppression is not of the method pickTop")
    features = {feature.name: feature for feature in (*description.input, *description.output)}
    if not features.keys() >= {*taken, *results} or len({*taken, *results}) < 4:
        raise PackageError(f"{package}: its non-maximum suppression does not declare {', '.join((*taken, *results))}")
    inputs = [read_input(package, features[name], description) for name in taken]
    outputs = tuple(read_feature(package, features[name], description) for name in results)
    arguments = [NamedType(name, TensorType("fp32", (None, None))) for name in taken]
    values: dict[str, tuple[Argument, ...]] = {
        "confidence": (Reference(taken[0]),),
        "coordinates": (Reference(taken[1]),),
    }
    for parameter, override, threshold in (
        ("iou_threshold", model.iouThresholdInputFeatureName, model.iouThreshold),
        ("confidence_threshold", model.confidenceThresholdInputFeatureName, model.confidenceThreshold),
    ):
        if not 0 <= threshold <= 1:
            raise PackageError(
                f"{package}: the {parameter} of its non-maximum suppression is {threshold:g}, not 0 to 1"
            )
        values[parameter] = (_number("fp32", threshold),)
        if override in known:
            values[parameter] = (Reference(override),)
            inputs.append(Feature(override, "array", (), "float64", default=threshold))
            arguments.append(NamedType(override, TensorType("fp32", ())))
    least, most = _rows(package, outputs)
    attributes: dict[str, Constant] = {
        "per_class": _number("bool", model.pickTop.perClass),
        "least": _number("int32", least),
    }
    if most is not None:
        attributes["most"] = _number("int32", most)
    made = tuple(NamedType(name, TensorType("fp32", (None, None))) for name in results)
    return Program(
        package=package,
        function=MAIN,
        functions=(MAIN,),
        specification_version=spec.specificationVersion,
        opset=_NO_OPSET,
        inputs=tuple(inputs),
        outputs=outputs,
        states=(),
        arguments=tuple(arguments),
        operations=(Operation("nonMaximumSuppression", results[0], values, attributes, made),),
        results=results,
        weights=Weights(package, package),
    )


def _rows(package: Path, outputs: Sequence[Feature]) -> tuple[int, int | None]:
    """How many boxes are returned at least, filled up with zeros, and at most (None: no limit).

    Either output may say so, by a fixed number or by a range.
    """
    least, most = 0, None
    for output in outputs:
        size = output.shape[0] if output.shape else None
        low, high = output.sizes[0] if output.sizes else (size, size)
        least, most = max(least, low or 0), high if most is None else most if high is None else min(most, high)
    if most is not None and most < least:
        raise PackageError(f"{package}: its non-maximum suppression returns {least} boxes at least and {most} at most")
    return least, most


def _number(dtype: str, value: float) -> Immediate:
    return Immediate(TensorType(dtype, ()), np.array(value, MIL_TO_NUMPY[dtype]))
