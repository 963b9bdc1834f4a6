"""The inputs, outputs and states that a model's description declares, read into `Feature`.

Nothing is allocated for a size that is only declared. Whatever a description holds, the one error is PackageError.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.program import Feature
from coreml_prune_bench.mlprogram.values import MOST_BYTES, Shape
from coreml_prune_bench.mlprogram.weights import DAMAGED

_MOST_DIMENSIONS = 32
_MOST_ELEMENTS = MOST_BYTES // 4  # Float32 or Int32, in which everything is computed
_MOST_LETTERS = 1_000
"""Of the name of a value: what is made on the way to it is named after it."""
_COLOR_SPACES = ("GRAYSCALE", "GRAYSCALE_FLOAT16", "RGB", "BGR")

ILLEGIBLE = (LookupError, ValueError, TypeError, ArithmeticError)
"""What reading raises where protobuf holds what no intact package does."""


def illegible(package: Path, what: str, error: Exception) -> PackageError:
    """The error to raise where one of ILLEGIBLE was raised for `what`."""
    return PackageError(f"{package}: {what} cannot be read: {error}; {DAMAGED}")


def check_name(package: Path, name: str) -> None:
    """Raises PackageError where `name` cannot be that of a value."""
    if len(name) > _MOST_LETTERS:
        raise PackageError(f"{package}: a value is called {name[:20]!r}... in {len(name):,} letters; {DAMAGED}")
    if not name or "/" in name or not name.isprintable():
        raise PackageError(f"{package}: a value is called {name!r}, which is no name; {DAMAGED}")


def read_input(package: Path, feature: Any, description: Any) -> Feature:
    """An input or state. Raises PackageError where it is no image and no array."""
    read = read_feature(package, feature, description)
    if read.kind not in ("image", "array"):
        raise PackageError(f"{package}: input {read.name!r} is declared as {read.kind}, expected an image or an array")
    return read


def read_feature(package: Path, feature: Any, description: Any) -> Feature:
    """A feature of the description, which names a classifier's label. Raises PackageError where it cannot be read."""
    try:
        return _described(package, feature, description)
    except ILLEGIBLE as error:
        raise illegible(package, f"the description of {feature.name!r}", error) from error


def _described(package: Path, feature: Any, description: Any) -> Feature:
    kind = feature.type.WhichOneof("Type")
    if feature.name == description.predictedFeatureName and kind in ("stringType", "int64Type"):
        return Feature(feature.name, "label", (), "str" if kind == "stringType" else "int64")
    if kind == "dictionaryType":
        return Feature(feature.name, "probabilities", (), "float64")
    if kind == "imageType":
        return _image_feature(feature.name, feature.type.imageType)
    if kind == "multiArrayType":
        return _array_feature(feature.name, feature.type.multiArrayType, optional=feature.type.isOptional)
    if kind == "stateType":
        return _array_feature(feature.name, feature.type.stateType.arrayType, optional=False)
    raise PackageError(f"{package}: {feature.name!r} is declared as {kind}, expected an image or a multi-array")


def _image_feature(name: str, image: Any) -> Feature:
    color_space = image.ColorSpace.Name(image.colorSpace)
    if color_space not in _COLOR_SPACES:
        raise ValueError(f"colour space {color_space}")
    channels = 1 if color_space.startswith("GRAYSCALE") else 3
    dtype = "float16" if color_space == "GRAYSCALE_FLOAT16" else "uint8"
    default = (int(image.height), int(image.width), channels)
    check_size(default)
    match image.WhichOneof("SizeFlexibility"):
        case "enumeratedSizes":
            shapes = tuple((int(s.height), int(s.width), channels) for s in image.enumeratedSizes.sizes)
            return _flexible(name, "image", dtype, default, shapes=shapes, color_space=color_space)
        case "imageSizeRange":
            ranges = [image.imageSizeRange.heightRange, image.imageSizeRange.widthRange]
            sizes = (*(_bounds(r) for r in ranges), (channels, channels))
            return _flexible(name, "image", dtype, default, sizes=sizes, color_space=color_space)
    return Feature(name, "image", default, dtype, color_space, default)


def _array_feature(name: str, array: Any, *, optional: bool) -> Feature:
    dtype = np.dtype(array.ArrayDataType.Name(array.dataType).lower().replace("double", "float64")).name
    shape = tuple(int(size) for size in array.shape)
    check_size(shape)
    default = None
    if optional:
        field_name = array.WhichOneof("defaultOptionalValue")
        default = float(getattr(array, field_name)) if field_name else 0.0
    match array.WhichOneof("ShapeFlexibility"):
        case "enumeratedShapes":
            shapes = tuple(tuple(int(size) for size in s.shape) for s in array.enumeratedShapes.shapes)
            return _flexible(name, "array", dtype, shape, shapes=shapes, default=default)
        case "shapeRange":
            sizes = tuple(_bounds(r) for r in array.shapeRange.sizeRanges)
            return _flexible(name, "array", dtype, shape, sizes=sizes, default=default)
    return Feature(name, "array", shape, dtype, None, shape, default=default)


def _bounds(size_range: Any) -> tuple[int, int | None]:
    """Core ML writes -1 for no upper bound."""
    return int(size_range.lowerBound), None if size_range.upperBound < 0 else int(size_range.upperBound)


def _flexible(
    name: str,
    kind: Literal["image", "array"],
    dtype: str,
    default_shape: tuple[int, ...],
    *,
    shapes: tuple[tuple[int, ...], ...] = (),
    sizes: tuple[tuple[int, int | None], ...] = (),
    color_space: str | None = None,
    default: float | None = None,
) -> Feature:
    if shapes:
        shape = tuple(only[0] if len(only := list(set(column))) == 1 else None for column in zip(*shapes, strict=False))
    else:
        shape = tuple(low if low == high else None for low, high in sizes)
    return Feature(name, kind, shape, dtype, color_space, default_shape, sizes, shapes, default)


def check_size(shape: Shape) -> None:
    """Raises ValueError where nothing can be that large."""
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{len(shape)} dimensions, expected at most {_MOST_DIMENSIONS}")
    # An open size, and one of zero, must not make another one small.
    sizes = [size or 1 for size in shape]
    if min(sizes, default=1) < 0:
        raise ValueError(f"shape {list(shape)} has a negative size")
    if math.prod(sizes) > _MOST_ELEMENTS:
        raise ValueError(f"shape {list(shape)} is beyond {MOST_BYTES >> 30} GiB")
