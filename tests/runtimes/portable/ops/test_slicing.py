"""Slices, against NumPy's."""

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb

from tests.runtimes.portable.programs import Case, check, identity, outputs

X = np.random.default_rng(0).normal(0, 2, (2, 3, 4)).astype(np.float32)

Parts = tuple[slice | int, ...]
SLICES: list[Parts] = [
    np.s_[0:1, 1:3, 1:2],
    np.s_[:, :, :],
    np.s_[:, -2:, ::2],
    np.s_[-1:, 0:-1, -3:-1],
    np.s_[::-1, ::-2, 3:0:-2],
    np.s_[1, :, :],
    np.s_[:, -1, :],
    np.s_[:, 1, -1],
    np.s_[:, -3, 1:100],
    np.s_[-1::-1, :1:-1, -2::-1],
    np.s_[:, 2:2, :],
]


def bounds(parts: Parts) -> dict[str, Any]:
    """The arguments of slice_by_index that mean these slices."""
    whole = [slice(part, 0) if isinstance(part, int) else part for part in parts]
    return {
        "begin": [part.start or 0 for part in whole],
        "end": [part.stop or 0 for part in whole],
        "stride": [part.step or 1 for part in whole],
        "begin_mask": [part.start is None for part in whole],
        "end_mask": [part.stop is None for part in whole],
        "squeeze_mask": [isinstance(part, int) for part in parts],
    }


def test_slice_by_index(tmp_path: Path) -> None:
    def case(parts: Parts) -> Case:
        return lambda x: mb.slice_by_index(x=x, **bounds(parts)), lambda x: x[parts]

    check(tmp_path / "m.mlpackage", {str(parts): case(parts) for parts in SLICES}, X)


def updated(x: np.ndarray, parts: Parts) -> np.ndarray:
    result = x.copy()
    result[parts] = UPDATE[parts]
    return result


UPDATE = np.random.default_rng(1).normal(0, 1, X.shape).astype(np.float32)
UPDATES = [parts for parts in SLICES if X[parts].size]


def test_slice_update(tmp_path: Path) -> None:
    def case(parts: Parts) -> Case:
        return lambda x: mb.slice_update(x=x, update=UPDATE[parts], **bounds(parts)), lambda x: updated(x, parts)

    check(tmp_path / "m.mlpackage", {str(parts): case(parts) for parts in UPDATES}, X, opset=ct.target.iOS18)


def test_bounds_that_only_running_tells(tmp_path: Path) -> None:
    table = np.array([bounds(parts)["begin"] + bounds(parts)["end"] for parts in UPDATES], np.float32)

    def build(x: Any, table: Any) -> list[Any]:
        numbers = mb.split(x=mb.cast(x=table, dtype="int32"), num_splits=len(UPDATES), axis=0)
        values = []
        for parts, row in zip(UPDATES, numbers, strict=True):
            begin, end = mb.split(x=mb.squeeze(x=row, axes=[0]), num_splits=2, axis=0)
            arguments = bounds(parts) | {"begin": begin, "end": end}
            values.append(mb.slice_by_index(x=x, **arguments))
            values.append(mb.slice_update(x=x, update=UPDATE[parts], **arguments))
        return values

    got = outputs(tmp_path / "m.mlpackage", build, {"x": X, "table": table}, opset=ct.target.iOS18)
    for parts, slice_, update in zip(UPDATES, got[::2], got[1::2], strict=True):
        np.testing.assert_array_equal(slice_, X[parts], err_msg=str(parts))
        np.testing.assert_array_equal(update, updated(X, parts), err_msg=str(parts))


SLICING: dict[str, Case] = {
    "slice_by_size": (lambda x: mb.slice_by_size(x=x, begin=[1, 0, -3], size=[-1, 2, 2]), lambda x: x[1:, :2, 1:3]),
    "slice_by_size-all": (lambda x: mb.slice_by_size(x=x, begin=[0, 0, 0], size=[-1, 3, -1]), identity),
    "crop": (lambda x: mb.crop(x=x, crop_height=[1, 0], crop_width=[0, 2]), lambda x: x[:, 1:, :-2]),
    "sliding_windows": (
        lambda x: mb.sliding_windows(x=x, axis=-1, size=2),
        lambda x: np.stack([x[..., :2], x[..., 1:3], x[..., 2:]], -2),
    ),
    "sliding_windows-stride": (
        lambda x: mb.sliding_windows(x=x, axis=1, size=1, stride=2),
        lambda x: x[:, ::2][:, :, np.newaxis],
    ),
}


def test_slicing(tmp_path: Path) -> None:
    check(tmp_path / "m.mlpackage", SLICING, X)
