"""Programs of several operations at once, for converting takes most of the time, and what they make of arrays."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from coreml_prune_bench.runtimes.portable import load
from coreml_prune_bench.runtimes.portable.session import Model
from tests.packages import from_mil

Results = dict[str, np.ndarray]
Operations = dict[str, Callable[..., Any]]
Drawn = Callable[..., np.ndarray]
"""The fixture `drawn`: an array of this shape."""

Case = tuple[Callable[..., Any], Callable[[np.ndarray], np.ndarray]]
"""An operation of x, and its definition in NumPy."""


def identity(x: np.ndarray) -> np.ndarray:
    return x


def as_output(value: Any) -> Any:
    """Core ML has no outputs of booleans."""
    return mb.cast(x=value, dtype="int32") if value.dtype == types.bool else value


def convert(folder: Path, operations: Operations, *shapes: tuple[int, ...], **options: Any) -> Model:
    """Each of `operations` on the same inputs, in one program. The inputs are x, y and z."""
    writers = operations.values()
    builders: list[Callable[..., Any]] = [
        lambda x: tuple(as_output(write(x)) for write in writers),
        lambda x, y: tuple(as_output(write(x, y)) for write in writers),
        lambda x, y, z: tuple(as_output(write(x, y, z)) for write in writers),
    ]
    return load(from_mil(folder / "m.mlpackage", builders[len(shapes) - 1], *shapes, **options), threads=1)


def run(folder: Path, operations: Operations, *inputs: np.ndarray, **options: Any) -> Results:
    """What each of `operations` makes of the same inputs."""
    model = convert(folder, operations, *(array.shape for array in inputs), **options)
    results = model.predict(dict(zip("xyz", inputs, strict=False)))
    return dict(zip(operations, results.values(), strict=True))


def all_close(results: Results, references: Results, *, tolerance: float = 1e-5) -> None:
    assert results.keys() == references.keys()
    for name, reference in references.items():
        np.testing.assert_allclose(results[name], reference, rtol=tolerance, atol=tolerance, err_msg=name)


def outputs(
    path: Path, build: Callable[..., Any], inputs: Mapping[str, np.ndarray], **options: Any
) -> list[np.ndarray]:
    """What the outputs of `build`, a function of inputs of these names, are: Float32 or integers."""
    from_mil(path, build, *(value.shape for value in inputs.values()), **options)
    model = load(path, threads=1)
    predicted = model.predict(inputs)
    return [predicted[name] for name in model.output_names]


def check(path: Path, cases: Mapping[str, Case], x: np.ndarray, **options: Any) -> None:
    """Each case is its definition, to rounding."""

    def build(x: Any) -> Any:
        return [case(x) for case, _ in cases.values()]

    for (name, (_, expected)), got in zip(cases.items(), outputs(path, build, {"x": x}, **options), strict=True):
        want = expected(x)
        assert got.shape == want.shape, name
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=name)
