"""What a model is fed while it is timed: the same noise every time, in the shapes that it declares."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.program import Feature

_SEED = 0


def sample_inputs(features: Sequence[Feature]) -> dict[str, Any]:
    """A PIL image or an array for each input, of its default shape. No threshold is overridden."""
    draw = np.random.default_rng(_SEED)
    given = [feature for feature in features if feature.default is None or feature.default_shape]
    return {feature.name: _sample(feature, draw) for feature in given}


def sample_arrays(features: Sequence[Feature]) -> dict[str, np.ndarray]:
    """The same, as Core AI takes it: in the type that is declared, of an image uint8 [1, 3, height, width]."""
    types = {feature.name: feature.dtype for feature in features}
    return {
        name: np.asarray(value).transpose(2, 0, 1)[np.newaxis].copy()
        if isinstance(value, PIL.Image.Image)
        else value.astype(types[name])
        for name, value in sample_inputs(features).items()
    }


def _sample(feature: Feature, draw: np.random.Generator) -> Any:
    if feature.kind == "image":
        return _image(feature, draw)
    if feature.kind != "array":
        raise PackageError(f"input {feature.name!r} is a {feature.kind}: expected images and arrays")
    if np.dtype(feature.dtype).kind in "iu":
        # Small: an integer is often an index, and 0 and 1 are inside of anything.
        return draw.integers(0, 2, feature.default_shape).astype(feature.dtype)
    return draw.standard_normal(feature.default_shape).astype(np.float32)


def _image(feature: Feature, draw: np.random.Generator) -> PIL.Image.Image:
    height, width, _ = feature.default_shape
    if feature.color_space == "GRAYSCALE_FLOAT16":
        return PIL.Image.fromarray(draw.random((height, width), np.float32))
    shape = (height, width) if feature.color_space == "GRAYSCALE" else (height, width, 3)
    return PIL.Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8))
