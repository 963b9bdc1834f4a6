"""Values between coremltools' callers and the portable runtime, converted as Core ML's Python binding converts them.

Core ML takes an array of any element type where the model declares another, fills in an optional input, and returns
pixels with an alpha channel and Float16 as Float32. None of that is the runtime's business, and all of it is here. It
must check what Core ML checks (names, shapes, sizes of images) and say it in Core ML's words, which callers match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.program import Feature

_RETURNED = {"float16": "float32"}
"""The binding hands Float16 arrays out as Float32, rounded: see `convertArrayValueToPython` in coremltools."""


def inputs_to_runtime(features: Sequence[Feature], values: Mapping[str, Any]) -> dict[str, Any]:
    """What `Model.predict` takes. A value that the model does not ask for is ignored, as Core ML ignores it.

    Raises PackageError where Core ML would refuse.
    """
    converted = {}
    for feature in features:
        if feature.name in values:
            converted[feature.name] = _input(feature, values[feature.name])
        elif feature.default is None:
            raise PackageError(f"Feature {feature.name} is required but not specified.")
    return converted


def outputs_from_runtime(features: Sequence[Feature], values: Mapping[str, Any]) -> dict[str, Any]:
    """What coremltools returns to its caller, by the types that the model declares."""
    return {feature.name: _output(feature, values[feature.name]) for feature in features if feature.name in values}


def array_to_runtime(feature: Feature, value: Any) -> np.ndarray:
    """As the model's element type, of a declared shape. Integers are cut off, not rounded, as Core ML does."""
    array = _as_array(feature, value)
    if array.ndim == 0 and feature.accepts((1,)):
        array = array.reshape(1)
    if not feature.accepts(array.shape):
        raise PackageError(_shape_refused(feature, array.shape))
    with np.errstate(over="ignore", invalid="ignore"):  # beyond Float16 is infinite, as it is in Core ML
        return array.astype(feature.dtype)


def array_from_runtime(feature: Feature, value: Any) -> np.ndarray:
    """Core ML has no scalars: they come as one element."""
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.asarray(value).astype(feature.dtype)
    return array.astype(_RETURNED.get(feature.dtype, feature.dtype)).reshape(array.shape or (1,))


def _input(feature: Feature, value: Any) -> Any:
    if feature.kind == "image":
        return _image_to_runtime(feature, value)
    return array_to_runtime(feature, value)


def _output(feature: Feature, value: Any) -> Any:
    match feature.kind:
        case "array":
            return array_from_runtime(feature, value)
        case "image":
            return value.convert("RGBA") if value.mode == "RGB" else value
        case "probabilities":
            return {label: float(score) for label, score in value.items()}
        case _:
            return value


def _as_array(feature: Feature, value: Any) -> np.ndarray:
    if isinstance(value, str | bytes | Mapping | Image.Image):
        raise PackageError(f"value type not convertible: input {feature.name} is an array, got {type(value).__name__}")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise PackageError(f"value type not convertible: input {feature.name} holds {array.dtype}, expected numbers")
    return array


def _image_to_runtime(feature: Feature, value: Any) -> Image.Image:
    if not isinstance(value, Image.Image):
        raise PackageError(f"value type not convertible: input {feature.name} is a PIL image, got {type(value)}")
    if value.mode == "RGBA":
        value = value.convert("RGB")  # Core ML's buffers have an alpha channel, which it does not look at
    channels = feature.default_shape[-1]
    if not feature.accepts((value.height, value.width, channels)):
        raise PackageError(
            f"Image size {value.width} x {value.height} is not what the model description allows for input "
            f"{feature.name}: expected {feature.expected_shape()}, as height, width and channels"
        )
    return value


def _shape_refused(feature: Feature, shape: Sequence[int]) -> str:
    """The first thing that is wrong, in Core ML's words."""
    if feature.shapes:
        return f"MultiArray Shape ({_by(shape)}) was not in enumerated set of allowed shapes"
    if len(shape) == len(feature.sizes):
        for axis, (size, (low, high)) in enumerate(zip(shape, feature.sizes, strict=True)):
            if size < low or (high is not None and size > high):
                allowed = f"{low}..{'' if high is None else high}"
                return f"MultiArray shape: Size ({size}) of dimension ({axis}) is not in allowed range ({allowed})"
    declared = _by(feature.default_shape)
    return f"MultiArray shape ({_by(shape)}) does not match the shape ({declared}) specified in the model description"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
