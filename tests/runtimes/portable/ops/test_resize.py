"""Resizing images: against the documented formulas in NumPy, hand values of the definitions, and torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from torch.nn import functional

from coreml_prune_bench.core.errors import UnsupportedOperationError
from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_torch
from tests.runtimes.portable.ops.interpolation import linear
from tests.runtimes.portable.programs import Operations, convert, run

X = np.random.default_rng(0).normal(0, 2, (2, 3, 5, 7)).astype(np.float32)
TARGETS = [(10, 21), (3, 4), (8, 7), (5, 7), (1, 1), (1, 9), (12, 1)]


def grid(mode: str, inputs: int, outputs: int) -> np.ndarray:
    """The definition's formulas."""
    i = np.arange(outputs)
    if mode == "ALIGN_CORNERS" and outputs == 1:
        return np.array([(inputs - 1) / 2])
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        points = i * (inputs - 1) / max(1, outputs - 1)
    elif mode == "DEFAULT":
        points = i * (inputs - inputs / outputs) / max(1, outputs - 1)
    elif mode == "OFFSET_CORNERS":
        points = (0.5 + i) * max(1, inputs - 1) / outputs
    else:
        points = (i + 0.5) * inputs / outputs - 0.5
    return np.minimum(inputs - 1, np.maximum(0, points))


def resized(x: np.ndarray, target: tuple[int, ...], mode: str) -> np.ndarray:
    """The last axes."""
    result = x.astype(np.float64)
    for axis, size in zip(range(-len(target), 0), target, strict=True):
        result = linear(result, axis, grid(mode, x.shape[axis], size))
    return result


MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")

# The grid points that the definition gives for an input of [0, 1] and 5 outputs, then 6.
DOCUMENTED = {
    "STRICT_ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "DEFAULT": ([0, 0.4, 0.8, 1, 1], [0, 1 / 3, 2 / 3, 1, 1, 1]),
    "OFFSET_CORNERS": ([0.1, 0.3, 0.5, 0.7, 0.9], [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12]),
    "UNALIGN_CORNERS": ([0, 0.1, 0.5, 0.9, 1], [0, 0, 1 / 3, 2 / 3, 1, 1]),
}


def test_resize_bilinear_gives_the_documented_points(tmp_path: Path) -> None:
    operations: Operations = {
        f"{mode} {size}": lambda x, mode=mode, size=size: mb.resize_bilinear(
            x=x, target_size_height=1, target_size_width=size, sampling_mode=mode
        )
        for mode in MODES
        for size in (5, 6)
    }
    results = run(tmp_path, operations, np.array([[[0, 1]]], np.float32))
    for mode, points in DOCUMENTED.items():
        for size, expected in zip((5, 6), points, strict=True):
            np.testing.assert_allclose(results[f"{mode} {size}"].ravel(), expected, atol=1e-6, err_msg=mode)


@pytest.mark.parametrize("mode", MODES)
def test_resize_bilinear_follows_the_formulas(mode: str, tmp_path: Path) -> None:
    operations: Operations = {
        str(size): lambda x, size=size: mb.resize_bilinear(
            x=x, target_size_height=size[0], target_size_width=size[1], sampling_mode=mode
        )
        for size in TARGETS
    }
    results = run(tmp_path, operations, X)
    for size in TARGETS:
        np.testing.assert_allclose(results[str(size)], resized(X, size, mode), atol=1e-5, err_msg=str(size))


@pytest.mark.parametrize("mode", MODES)
def test_resize_of_any_rank_and_number_of_axes_follows_the_formulas(mode: str, tmp_path: Path) -> None:
    """`shape` may be shorter than the rank, and a 0 in it stands for the input's size."""
    cases: dict[str, tuple[tuple[int, ...], list[int], int, tuple[int, ...]]] = {
        "one axis": ((2, 3, 5, 7), [9], 1, (9,)),
        "of a shape": ((2, 3, 5, 7), [1, 0, 4], 2, (5, 4)),
        "three axes": ((2, 3, 5, 7), [2, 4, 0, 9], 3, (4, 5, 9)),
        "rank 1": ((210,), [80], 1, (80,)),
        "rank 2": ((5, 42), [8, 8], 2, (8, 8)),
        "rank 3": ((5, 6, 7), [8, 8], 2, (8, 8)),
        "rank 5": ((1, 2, 3, 5, 7), [1, 9, 3], 2, (9, 3)),
        "rank 5, three axes": ((1, 2, 3, 5, 7), [6, 2, 3], 3, (6, 2, 3)),
    }
    operations: Operations = {
        name: lambda x, case=case: mb.resize(
            x=mb.reshape(x=x, shape=case[0]), shape=case[1], resized_dims=np.uint32(case[2]), sampling_mode=mode
        )
        for name, case in cases.items()
    }
    results = run(tmp_path, operations, X)
    for name, (shape, _, _, target) in cases.items():
        np.testing.assert_allclose(
            results[name], resized(X.reshape(shape), target, mode), atol=1e-4, err_msg=f"{mode}, {name}"
        )


def test_resize_to_a_size_known_while_running(tmp_path: Path) -> None:
    """By every mode, and to the nearest neighbours."""
    operations: Operations = {
        mode: lambda x, y, mode=mode: mb.resize(
            x=x, shape=mb.cast(x=y, dtype="int32"), resized_dims=np.uint32(2), sampling_mode=mode
        )
        for mode in MODES
    }
    operations["nearest"] = lambda x, y: mb.resize(
        x=x, shape=mb.cast(x=y, dtype="int32"), resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"
    )
    model = convert(tmp_path, operations, X.shape, (3,))
    for size in ((8, 14), (1, 3), (0, 7), (5, 1)):
        values = model.predict({"x": X, "y": np.array([1, *size], np.float32)}).values()
        results = dict(zip(operations, values, strict=True))
        target = (size[0] or X.shape[2], size[1])
        for mode in MODES:
            np.testing.assert_allclose(results[mode], resized(X, target, mode), atol=1e-5, err_msg=f"{mode} {size}")
        np.testing.assert_array_equal(results["nearest"], nearest(X, target, centers), err_msg=str(size))


@pytest.mark.parametrize(
    ("align", "half_pixel"), [(True, None), (True, False), (False, None), (False, True), (False, False)]
)
def test_upsample_bilinear(align: bool, half_pixel: bool | None, tmp_path: Path) -> None:
    scales = [(2, 3), (1.5, 2.6), (1.0, 0.5)]
    options = {"align_corners": align} | ({} if half_pixel is None else {"half_pixel_centers": half_pixel})
    operations: Operations = {
        str(scale): lambda x, scale=scale: mb.upsample_bilinear(
            x=x, scale_factor_height=scale[0], scale_factor_width=scale[1], **options
        )
        for scale in scales
    }
    results = run(tmp_path, operations, X)
    mode = "STRICT_ALIGN_CORNERS" if align else "DEFAULT" if half_pixel is False else "UNALIGN_CORNERS"
    for scale in scales:
        target = int(5 * scale[0]), int(7 * scale[1])
        np.testing.assert_allclose(results[str(scale)], resized(X, target, mode), atol=1e-5, err_msg=str(scale))
        if mode != "DEFAULT":
            torchs = functional.interpolate(torch.from_numpy(X), target, mode="bilinear", align_corners=align)
            np.testing.assert_allclose(results[str(scale)], torchs.numpy(), atol=1e-5, err_msg=str(scale))


def corners(inputs: int, outputs: int) -> list[int]:
    return [i * inputs // outputs for i in range(outputs)]


def centers(inputs: int, outputs: int) -> list[int]:
    return [(2 * i + 1) * inputs // (2 * outputs) for i in range(outputs)]


def nearest(x: np.ndarray, target: tuple[int, int], rule: Callable[[int, int], list[int]]) -> np.ndarray:
    return x[..., rule(x.shape[-2], target[0]), :][..., rule(x.shape[-1], target[1])]


def test_nearest_neighbors(tmp_path: Path) -> None:
    operations: Operations = {
        f"resize_nearest_neighbor {size}": lambda x, size=size: mb.resize_nearest_neighbor(
            x=x, target_size_height=size[0], target_size_width=size[1]
        )
        for size in TARGETS
    }
    operations |= {
        f"resize {size}": lambda x, size=size: mb.resize(
            x=x, shape=size, resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"
        )
        for size in TARGETS
    }
    scales = {(10, 21): (2, 3), (10, 7): (2.0, 1.0), (13, 25): (2.6, 3.6), (3, 4): (0.7, 0.6)}
    operations |= {
        f"upsample {size}": lambda x, scale=scale: mb.upsample_nearest_neighbor(
            x=x, scale_factor_height=scale[0], scale_factor_width=scale[1]
        )
        for size, scale in scales.items()
    }
    results = run(tmp_path, operations, X)
    for size in TARGETS:
        np.testing.assert_array_equal(results[f"resize_nearest_neighbor {size}"], nearest(X, size, centers))
        np.testing.assert_array_equal(results[f"resize {size}"], nearest(X, size, centers))
    for size in scales:
        np.testing.assert_array_equal(results[f"upsample {size}"], nearest(X, size, corners))
        torchs = functional.interpolate(torch.from_numpy(X), size, mode="nearest")
        np.testing.assert_array_equal(results[f"upsample {size}"], torchs.numpy())


def test_nearest_neighbors_of_integers(tmp_path: Path) -> None:
    operations: Operations = {
        str(size): lambda x, size=size: mb.resize(
            x=x, shape=size, resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"
        )
        for size in ((4, 6), (3, 2))
    }
    x = np.arange(6, dtype=np.int32).reshape(1, 2, 3)
    results = run(tmp_path, operations, x, dtype=types.int32)
    assert results["(4, 6)"].tolist() == x.repeat(2, 1).repeat(2, 2).tolist()
    assert results["(3, 2)"].tolist() == [[[0, 2], [3, 5], [3, 5]]]


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (
            lambda x: mb.resize(
                x=x,
                shape=[4, 4],
                resized_dims=np.uint32(2),
                interpolation_mode="NEAREST_NEIGHBOR",
                sampling_mode="ALIGN_CORNERS",
            ),
            "nearest in sampling_mode 'ALIGN_CORNERS'",
        ),
        (
            lambda x: mb.resize(x=mb.cast(x=x, dtype="int32"), shape=[4, 4], resized_dims=np.uint32(2)),
            "between integers",
        ),
    ],
)
def test_what_is_not_documented_is_refused(write: Callable[..., Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperationError, match=why):
        convert(tmp_path, {"": write}, (1, 2, 3))


class Upsampled(torch.nn.Module):
    """Up and down again, to sizes that follow from the image's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        larger = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        larger = functional.interpolate(larger, scale_factor=1.5, mode="bilinear", align_corners=True)
        return functional.max_pool2d(larger, 3)


def test_images_of_any_size(tmp_path: Path) -> None:
    shape = ct.Shape((1, 3, ct.RangeDim(2, 16, default=4), ct.RangeDim(2, 16, default=4)))
    path = from_torch(tmp_path / "m.mlpackage", Upsampled(), (1, 3, 4, 4), inputs=[ct.TensorType("x", shape)])
    model = load(path, threads=1)
    for size in ((4, 4), (6, 9)):
        x = torch.rand(1, 3, *size)
        np.testing.assert_allclose(model.predict({"x": x.numpy()})["y"], Upsampled()(x).numpy(), atol=1e-5)


BOXES = np.array([[0.5, 1, 3, 4.5], [1, 2, 1, 2], [0, 0, 4, 6], [-1, 2, 3.5, 8]], np.float32)
"""A part, a point, the whole of an image of [5, 7], and one that reaches beyond it on two sides. Height first."""


def crops(x: np.ndarray, boxes: np.ndarray, target: tuple[int, int], mode: str, value: float = 0.0) -> np.ndarray:
    """Of one image [C, H, W]: [N, C, *target]. The boxes are [top, left, bottom, right]."""
    results = np.full((len(boxes), x.shape[0], *target), value)
    limits = x.shape[1] - 1, x.shape[2] - 1
    for n, (top, left, bottom, right) in enumerate(boxes.astype(np.float64)):
        rows = top + grid(mode, bottom - top + 1, target[0])
        columns = left + grid(mode, right - left + 1, target[1])
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                if 0 <= row <= limits[0] and 0 <= column <= limits[1]:
                    across = linear(x.astype(np.float64), 1, np.array([row]))
                    results[n, :, i, j] = linear(across, 2, np.array([column]))[:, 0, 0]
    return results


@pytest.mark.parametrize("mode", MODES)
def test_crop_resize_follows_the_formulas(mode: str, tmp_path: Path) -> None:
    targets = [(3, 4), (1, 1), (1, 8)]
    operations: Operations = {
        str(target): lambda x, y, target=target: mb.crop_resize(
            x=x,
            boxes=y,
            box_indices=np.array([0, 1, 1, 0], np.int32),
            target_height=target[0],
            target_width=target[1],
            sampling_mode=mode,
            pad_value=7.5,
        )
        for target in targets
    }
    results = run(tmp_path, operations, X, BOXES)
    for target in targets:
        expected = crops(X[0], BOXES, target, mode, 7.5)
        expected[1:3] = crops(X[1], BOXES[1:3], target, mode, 7.5)
        np.testing.assert_allclose(results[str(target)], expected, atol=1e-5, err_msg=str(target))


def test_crop_resize_in_other_coordinates(tmp_path: Path) -> None:
    top, left, bottom, right = BOXES[:1].T
    center = [(top + bottom) / 2, (left + right) / 2, bottom - top, right - left]
    order = [1, 0, 3, 2]
    boxes = {
        "CORNERS_HEIGHT_FIRST": BOXES[:1],
        "CORNERS_WIDTH_FIRST": BOXES[:1, order],
        "CENTER_SIZE_HEIGHT_FIRST": np.stack(center, 1),
        "CENTER_SIZE_WIDTH_FIRST": np.stack(center, 1)[:, order],
    }
    options = {"target_height": 3, "target_width": 4, "sampling_mode": "ALIGN_CORNERS"}
    operations: Operations = {}
    for mode, box in boxes.items():
        size = np.array([6, 4, 6, 4] if "WIDTH" in mode else [4, 6, 4, 6], np.float32)
        operations[mode] = lambda x, mode=mode, box=box: mb.crop_resize(
            x=x, boxes=box, box_coordinate_mode=mode, **options
        )
        operations[f"{mode}, normalized"] = lambda x, mode=mode, box=box / size / 0.5: mb.crop_resize(
            x=x, boxes=box, box_coordinate_mode=mode, normalized_coordinates=True, spatial_scale=0.5, **options
        )
    operations["whole numbers"] = lambda x: mb.crop_resize(x=x, boxes=np.array([[1, 2, 3, 4]], np.uint16), **options)
    results = run(tmp_path, operations, X)
    np.testing.assert_allclose(
        results.pop("whole numbers"), crops(X[0], np.array([[1, 2, 3, 4]]), (3, 4), "ALIGN_CORNERS"), atol=1e-5
    )
    for name, result in results.items():  # the first box's image is the first, where nothing says so
        np.testing.assert_allclose(result, crops(X[0], BOXES[:1], (3, 4), "ALIGN_CORNERS"), atol=1e-5, err_msg=name)


def test_crop_resize_reaches_the_last_pixel(tmp_path: Path) -> None:
    """Boxes that end with the image: rounding must not take the last point for one beside it."""
    ends = np.arange(1, 61, dtype=np.float32) / 7
    x = np.broadcast_to(np.float32(1), (1, 1, 9, 9)).copy()
    boxes = np.stack([8 - ends, 8 - ends, np.full(60, 8), np.full(60, 8)], axis=1).astype(np.float32)
    boxes = np.concatenate([boxes[boxes[:, 0] >= 0], np.full((1, 4), 8, np.float32)])
    indices = np.zeros(len(boxes), np.int32)
    operations: Operations = {
        f"{mode} {count}": lambda x, mode=mode, count=count: mb.crop_resize(
            x=x, boxes=boxes, box_indices=indices, target_height=count, target_width=1, sampling_mode=mode
        )
        for mode in MODES
        for count in (3, 7, 10)
    }
    for name, result in run(tmp_path, operations, x).items():
        np.testing.assert_array_equal(result, 1, err_msg=name)


def test_crop_resize_before_ios17(tmp_path: Path) -> None:
    options = {"target_height": 3, "target_width": 4, "sampling_mode": "ALIGN_CORNERS"}
    named = np.concatenate([[[1], [0], [1], [1]], BOXES], axis=1).astype(np.float32)
    operations: Operations = {
        "of every image": lambda x: mb.crop_resize(x=x, roi=BOXES.reshape(4, 1, 4, 1, 1), **options),
        "of named images": lambda x: mb.crop_resize(x=x, roi=named.reshape(4, 1, 5, 1, 1), **options),
    }
    results = run(tmp_path, operations, X, opset=ct.target.iOS15)
    each = [crops(image, BOXES, (3, 4), "ALIGN_CORNERS") for image in X]
    np.testing.assert_allclose(results["of every image"], np.stack(each, axis=1), atol=1e-5)
    expected = np.stack([each[1][0], each[0][1], each[1][2], each[1][3]])[:, np.newaxis]
    np.testing.assert_allclose(results["of named images"], expected, atol=1e-5)
