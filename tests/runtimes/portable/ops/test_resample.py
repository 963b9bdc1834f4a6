"""Sampling images at coordinates: against the definition in NumPy, and torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from torch.nn import functional

from coreml_prune_bench.core.errors import PackageError
from tests.runtimes.portable.ops.interpolation import linear
from tests.runtimes.portable.programs import Operations, convert, run

X = np.random.default_rng(0).normal(0, 2, (2, 3, 5, 7)).astype(np.float32)


def position(given: float, size: int, coordinates: str, align: bool) -> float:
    if coordinates == "unnormalized":
        return given
    unit = (given + 1) / 2 if coordinates == "normalized_minus_one_to_one" else given
    return unit * (size - 1) if align else unit * size - 0.5


def sampled(
    x: np.ndarray, points: np.ndarray, sampling: str, padding: str, coordinates: str, align: bool
) -> np.ndarray:
    """Look each point up in an image that NumPy pads."""
    names: dict[str, Any] = {
        "constant": "constant",
        "border": "edge",
        "reflection": "reflect",
        "symmetric": "symmetric",
    }
    far = 40
    options: dict[str, Any] = {"constant_values": 6.5} if padding == "constant" else {}
    padded = np.pad(x, [(0, 0), (0, 0), (far, far), (far, far)], names[padding], **options)
    result = np.empty((*x.shape[:2], *points.shape[1:3]))
    for b, i, j in np.ndindex(*points.shape[:3]):
        column = position(points[b, i, j, 0], x.shape[3], coordinates, align) + far
        row = position(points[b, i, j, 1], x.shape[2], coordinates, align) + far
        if sampling == "nearest":
            row, column = round(row), round(column)
        image = padded[b].astype(np.float64)
        result[b, :, i, j] = linear(linear(image, 1, np.array([row])), 2, np.array([column]))[:, 0, 0]
    return result


PADDINGS = ("constant", "border", "reflection", "symmetric")
COORDINATES = ("unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one")


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
def test_resample_looks_up_a_padded_image(sampling: str, coordinates: str, tmp_path: Path) -> None:
    cases = [(padding, align) for padding in PADDINGS for align in (True, False)]
    operations: Operations = {
        f"{padding}, {align}": lambda x, y, padding=padding, align=align: mb.resample(
            x=x,
            coordinates=y,
            sampling_mode=sampling,
            padding_mode=padding,
            padding_value=6.5,
            coordinates_mode=coordinates,
            align_corners=align,
        )
        for padding, align in cases
    }
    points = np.random.default_rng(1).uniform(-2.5, 3, (2, 4, 6, 2)).astype(np.float32)
    if coordinates == "unnormalized":
        points = points * 5
    results = run(tmp_path, operations, X, points)
    for padding, align in cases:
        np.testing.assert_allclose(
            results[f"{padding}, {align}"],
            sampled(X, points, sampling, padding, coordinates, align),
            atol=5e-5,
            err_msg=f"{padding}, {align}",
        )


@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
def test_resample_is_torchs_grid_sample(sampling: str, tmp_path: Path) -> None:
    """Halfway between two pixels too: every quarter of the image is asked for."""
    cases = [(padding, align) for padding in ("zeros", "border", "reflection") for align in (True, False)]
    names = {"zeros": "constant", "border": "border"}
    operations: Operations = {
        f"{padding}, {align}": lambda x, y, padding=padding, align=align: mb.resample(
            x=x,
            coordinates=y,
            sampling_mode=sampling,
            padding_mode=names.get(padding, "reflection" if align else "symmetric"),
            padding_value=0.0,
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=align,
        )
        for padding, align in cases
    }
    x = X[:, :, :4, :4]
    quarters = np.arange(-8, 9, dtype=np.float32) / 4
    points = np.stack(np.broadcast_arrays(quarters[:, None], quarters), axis=-1)[np.newaxis].repeat(2, axis=0)
    results = run(tmp_path, operations, x, points)
    for padding, align in cases:
        torchs = functional.grid_sample(
            torch.from_numpy(x), torch.from_numpy(points), sampling, padding, align_corners=align
        )
        np.testing.assert_allclose(
            results[f"{padding}, {align}"], torchs.numpy(), atol=1e-5, err_msg=f"{padding}, {align}"
        )


def test_resample_by_whole_numbers_and_of_one_pixel(tmp_path: Path) -> None:
    options = {"sampling_mode": "bilinear", "padding_value": 0.0, "align_corners": True}
    operations: Operations = {
        "whole": lambda x, y: mb.resample(
            x=x,
            coordinates=mb.cast(x=y, dtype="int32"),
            padding_mode="reflection",
            coordinates_mode="unnormalized",
            **options,
        ),
        "one pixel": lambda x, y: mb.resample(
            x=mb.slice_by_size(x=x, begin=[0, 0, 0, 0], size=[1, 1, 1, 1]),
            coordinates=y,
            padding_mode="reflection",
            coordinates_mode="unnormalized",
            **options,
        ),
    }
    x = np.array([[[[11, 22], [33, 44]]]], np.float32)
    points = np.array([[[[1, 0], [-1, 3]]]], np.float32)
    results = run(tmp_path, operations, x, points)
    assert results["whole"].tolist() == [[[[22, 44]]]]
    assert results["one pixel"].tolist() == [[[[11, 11]]]]


def test_affine_is_torchs(tmp_path: Path) -> None:
    options = {
        "sampling_mode": "bilinear",
        "padding_mode": "constant",
        "padding_value": 0.0,
        "coordinates_mode": "normalized_minus_one_to_one",
        "align_corners": True,
    }
    matrices = np.random.default_rng(2).normal(0, 0.7, (2, 6)).astype(np.float32)
    sizes = [(4, 6), (1, 3)]
    operations: Operations = {
        f"{size}": lambda x, y, size=size: mb.affine(
            x=x, transform_matrix=y, output_height=size[0], output_width=size[1], **options
        )
        for size in sizes
    }
    operations["one for all"] = lambda x, y: mb.affine(
        x=x, transform_matrix=matrices[:1], output_height=4, output_width=6, **options
    )
    results = run(tmp_path, operations, X, matrices)

    def torchs(rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        points = functional.affine_grid(torch.from_numpy(rows).reshape(-1, 2, 3), [2, 3, *size], align_corners=True)
        result: np.ndarray = functional.grid_sample(torch.from_numpy(X), points, align_corners=True).numpy()
        return result

    for size in sizes:
        np.testing.assert_allclose(results[f"{size}"], torchs(matrices, size), atol=1e-5)
    np.testing.assert_allclose(results["one for all"], torchs(matrices[[0, 0]], (4, 6)), atol=1e-5)


def test_affine_transforms_for_other_images_are_refused(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        return mb.affine(
            x=x,
            transform_matrix=np.ones((3, 6), np.float32),
            output_height=2,
            output_width=2,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=0.0,
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=True,
        )

    with pytest.raises(PackageError, match="3 transforms for 2 images"):
        convert(tmp_path, {"": build}, (2, 1, 3, 3))
