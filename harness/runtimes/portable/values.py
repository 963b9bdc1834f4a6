"""What a caller gives for an input, as what a session computes with; refused where it is not what the model declares.

Nothing is bent: Core ML does not resize an image either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.program import Feature

_PIL_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}


def sample(package: Path, feature: Feature, value: Any) -> np.ndarray:
    """One sample: [H, W, C] for an image, the declared shape for an array; the default for None, where there is one.

    Raises PackageError where it is of another kind, shape or element type.
    """
    if value is None and feature.default is not None:
        value = np.full(feature.default_shape, feature.default, feature.dtype)
    if feature.kind == "array":
        return _array(package, feature, value)
    return _image(package, feature, value)


def batch(package: Path, feature: Feature, value: Any) -> np.ndarray:
    """N samples, stacked. Raises PackageError as `sample` does."""
    array = _as_array(package, feature, value)
    if array.ndim == 0 or len(array) == 0:
        raise _refused(package, feature, "samples, stacked, 1 or more", f"shape {list(array.shape)}")
    first = array[:1] if leads_with_one(feature) else array[0]
    if not feature.accepts(first.shape):
        raise _refused(package, feature, f"samples of {feature.expected_shape()}", f"shape {list(array.shape)}")
    return _elements(package, feature, array)


def sample_shape(feature: Feature, samples: np.ndarray) -> tuple[int, ...]:
    """The shape of one of the samples that `batch` has checked."""
    return (1, *samples.shape[1:]) if leads_with_one(feature) else tuple(samples.shape[1:])


def leads_with_one(feature: Feature) -> bool:
    """Whether one sample already has a leading 1 that stands for the batch."""
    return feature.kind == "array" and feature.default_shape[:1] == (1,)


def computed(dtype: np.dtype[Any]) -> type[np.generic]:
    """What stands for the element type while computing."""
    return np.float32 if dtype.kind == "f" else np.int32


def _image(package: Path, feature: Feature, value: Any) -> np.ndarray:
    """A PIL image or array as [H, W, C]."""
    if not isinstance(value, np.ndarray):
        expected = _PIL_MODES[feature.color_space or ""]
        mode = getattr(value, "mode", None)
        if mode != expected:
            got = f"mode {mode}" if mode else type(value).__name__
            wanted = f"a PIL image of mode {expected} (use convert) or a {feature.dtype} array"
            raise _refused(package, feature, wanted, got)
        value = np.asarray(value)
        value = value[:, :, np.newaxis] if value.ndim == 2 else value  # gray has no channel dimension
        value = value.astype(feature.dtype)
    return _array(package, feature, value)


def _array(package: Path, feature: Feature, value: Any) -> np.ndarray:
    array = _as_array(package, feature, value)
    if not feature.accepts(array.shape):
        raise _refused(package, feature, feature.expected_shape(), f"shape {list(array.shape)}")
    return _elements(package, feature, array)


def _as_array(package: Path, feature: Feature, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise _refused(package, feature, feature.expected_shape(), "what is no array") from error


def _elements(package: Path, feature: Feature, array: np.ndarray) -> np.ndarray:
    target = np.dtype(feature.dtype)
    if not (array.dtype.kind in "iuf" and np.can_cast(array.dtype, target, "same_kind")) or (
        feature.kind == "image" and array.dtype != target
    ):
        raise _refused(package, feature, f"{feature.dtype} of {feature.expected_shape()}", f"{array.dtype}")
    if target.kind in "iu" and array.dtype != target and not np.array_equal(array, array.astype(target)):
        raise _refused(package, feature, f"{feature.dtype} of {feature.expected_shape()}", "integers beyond that")
    if array.dtype != np.float32 or target != np.float16:  # the model rounds its inputs itself, and faster
        with np.errstate(over="ignore"):  # to infinity, as the model does
            array = array.astype(target, copy=False)
    if feature.kind == "image" and target == np.uint8:
        return array
    return array.astype(computed(target), copy=False)


def _refused(package: Path, feature: Feature, expected: str, got: str) -> PackageError:
    return PackageError(f"{package}: input {feature.name!r} expects {expected}, got {got}")
