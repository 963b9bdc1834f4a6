"""What coremltools' binding makes of values and errors on their way in and out: CoreMLPythonUtils.mm."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from coreml_prune_bench.testing.script import Script


def native_error(description: str) -> RuntimeError:
    """As CoreMLPython.mm tells an NSError: the text of its userInfo."""
    quoted = description.replace("\\", "\\\\").replace('"', '\\"')
    return RuntimeError(f'{{\n    NSLocalizedDescription = "{quoted}";\n}}')


@contextlib.contextmanager
def dumped(script: Script) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # What the binding itself throws is a sentence, and so is a dump already.
        if not script.dumps or str(error).startswith(("{", "value type", "Unsupported")):
            raise
        raise native_error(str(error)) from error


def accepted(features: Sequence[Any], inputs: Mapping[str, Any], script: Script) -> dict[str, Any]:
    """What the binding makes of a dictionary (CoreMLPythonUtils.mm). A list becomes nil, and with that nothing."""
    kinds = {feature.name: feature.kind for feature in features}
    accepted: dict[str, Any] = {}
    for name, value in inputs.items():
        if isinstance(value, list | tuple):
            continue
        if isinstance(value, np.ndarray):
            if value.dtype.name not in script.arrays or value.ndim == 0:
                raise RuntimeError("value type not convertible")
        elif isinstance(value, bool | int | float | str | Mapping):
            if kinds.get(name) == "array":
                raise RuntimeError(f"Feature {name} is a {type(value).__name__}, but the model's is a multi array.")
        elif isinstance(value, np.generic) or not isinstance(value, PIL.Image.Image):
            raise RuntimeError("value type not convertible")
        elif value.mode not in ("RGB", "RGBA", "L", "F"):
            raise RuntimeError(f"Unsupported image type {value.mode}. Supported types are: RGB, RGBA, L.")
        accepted[name] = value
    return accepted


def differing(answers: dict[str, Any], error: float) -> dict[str, Any]:
    """With `error` added to the first element of each floating-point array."""
    if not error:
        return answers
    changed = dict(answers)
    for name, value in answers.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            changed[name] = value.copy()
            changed[name].flat[0] += error
    return changed


def as_float16(features: Sequence[Any], answers: dict[str, Any]) -> dict[str, Any]:
    half = {feature.name for feature in features if feature.kind == "array" and feature.dtype == "float16"}
    return {name: value.astype(np.float16) if name in half else value for name, value in answers.items()}
