"""Resizing images as a whole. What samples them at points stands in ops_resample.py, `crop` in ops_slicing.py.

Definitions: coremltools/converters/mil/mil/ops/defs/{iOS15,iOS16,iOS17}/image_resizing.py. The formulas of the sampling
modes stand there at iOS15's `resize_bilinear`. Which neighbour is the nearest stands nowhere; coremltools' tests, which
compare Core ML with TensorFlow, say it: `upsample_nearest_neighbor` takes for its output i the input
floor(i * in / out), the other operations take floor((i + 0.5) * in / out).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from coreml_prune_bench.runtimes.portable.batch import only
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation

ROWWISE = only("x", rank=3)

SAMPLING_MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")

_TRANSFORMATIONS = {
    "STRICT_ALIGN_CORNERS": "align_corners",
    "ALIGN_CORNERS": "tf_crop_and_resize",  # of the whole image: the same, but with the middle for an output of 1
    "DEFAULT": "asymmetric",
    "UNALIGN_CORNERS": "half_pixel",
}
"""The sampling modes that ONNX's Resize has under another name."""


def sampling_mode(call: Call) -> str:
    mode = call.text("sampling_mode", "DEFAULT")
    if mode not in SAMPLING_MODES:
        raise call.malformed(f"sampling_mode is {mode!r}")
    return mode


def fixed_sizes(call: Call, count: int) -> list[int]:
    """The sizes of the last `count` dimensions of x. Raises UnsupportedOperationError where one depends on the data."""
    shape = call.shape("x")
    sizes = [size for size in shape[len(shape) - count :] if size is not None]
    if len(sizes) < count:
        raise call.unsupported("the size of its image is not fixed")
    return sizes


# --- to a factor


@operation("upsample_nearest_neighbor", batch=ROWWISE)
def upsample_nearest_neighbor(call: Call) -> None:
    _nearest(call, _upsampled(call), lambda size, target: np.arange(target) * size // target)


@operation("upsample_bilinear", batch=ROWWISE)
def upsample_bilinear(call: Call) -> None:
    align = call.flag("align_corners", True)
    half_pixel = call.flag("half_pixel_centers", not align)
    if align and half_pixel:
        raise call.malformed("align_corners and half_pixel_centers are both set")
    mode = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS" if half_pixel else "DEFAULT"
    _linear(call, call.sizes("target", _upsampled(call)), 2, mode)


def _upsampled(call: Call) -> list[int]:
    """Height and width of the result."""
    if call.output_type.rank_known:
        declared = [size for size in call.output_type.shape[-2:] if size is not None]
        if len(declared) == 2:
            return declared
    scales = [call.real("scale_factor_height", 1.0), call.real("scale_factor_width", 1.0)]
    sizes = fixed_sizes(call, 2)
    return [int(np.floor(np.float32(scale) * np.float32(size))) for scale, size in zip(scales, sizes, strict=True)]


# --- to a size


def _resize_keeps_batch(call: Call) -> bool:
    return ROWWISE(call) and call.integer("resized_dims", 0) < call.rank("x")


@operation("resize_nearest_neighbor", batch=ROWWISE)
def resize_nearest_neighbor(call: Call) -> None:
    _nearest(call, [call.integer("target_size_height", 1), call.integer("target_size_width", 1)], _nearest_centers)


@operation("resize_bilinear", batch=ROWWISE)
def resize_bilinear(call: Call) -> None:
    target = [call.integer("target_size_height", 1), call.integer("target_size_width", 1)]
    _linear(call, call.sizes("target", target), 2, sampling_mode(call))


@operation("resize", batch=_resize_keeps_batch)
def resize(call: Call) -> None:
    count, mode = call.integer("resized_dims", 0), sampling_mode(call)
    interpolation = call.text("interpolation_mode", "LINEAR")
    if interpolation not in ("LINEAR", "NEAREST_NEIGHBOR"):
        raise call.malformed(f"interpolation_mode is {interpolation!r}")
    if not 1 <= count <= 3:
        raise call.unsupported(f"it resizes {count} dimensions")
    if interpolation == "LINEAR":
        if not call.is_float("x"):
            raise call.unsupported("it interpolates between integers")
        _linear(call, _target(call, count), count, mode)
        return
    if mode not in ("DEFAULT", "UNALIGN_CORNERS"):
        raise call.unsupported(f"what is nearest in sampling_mode {mode!r} is not documented")
    if call.is_constant("shape"):
        _nearest(call, _fixed_target(call, count), _nearest_centers)
    else:
        _nearest_to(call, _target(call, count), count)


def _fixed_target(call: Call, count: int) -> list[int]:
    sizes = call.ints("shape", [])[-count:]
    return [size or inherited for size, inherited in zip(sizes, fixed_sizes(call, count), strict=True)]


def _target(call: Call, count: int) -> str:
    """The sizes of the last `count` dimensions of the result; 0 stands for x's size."""
    if call.is_constant("shape"):
        return call.sizes("target", _fixed_target(call, count))
    bounds = [call.sizes("from", [-count]), call.sizes("to", [np.iinfo(np.int32).max])]
    sizes = call.node("Slice", [call.int64("shape"), *bounds], part="sizes")
    inherited = call.node("Shape", [call.tensor("x")], part="inherited", start=-count)
    zero = call.node("Equal", [sizes, call.sizes("zero", [0])], part="zeros")
    return call.node("Where", [zero, inherited, sizes], part="target")


# --- nearest neighbours


def _nearest_centers(size: int, target: int) -> np.ndarray:
    return (2 * np.arange(target) + 1) * size // (2 * target)


def _nearest(call: Call, target: list[int], indices: Callable[[int, int], np.ndarray]) -> None:
    """`indices` gives the input of each output, for an axis of so many inputs and outputs."""
    rank, pairs = call.rank("x"), list(zip(fixed_sizes(call, len(target)), target, strict=True))
    if all(out % size == 0 for size, out in pairs):  # every pixel is repeated, by either rule
        factors = [1] * (rank - len(pairs)) + [out // size for size, out in pairs]
        scales = call.initializer("scales", np.array(factors, np.float32))
        rule: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        call.node("Resize", [call.tensor("x"), "", scales], mode="nearest", **rule)
    else:
        call.bounded(max(target))
        _gather(call, [call.sizes(f"indices{n}", indices(*pair).tolist()) for n, pair in enumerate(pairs)])


def _nearest_to(call: Call, target: str, count: int) -> None:
    """By `_nearest_centers`, for a target that is known when the model runs."""
    one, two = (call.initializer(name, np.array(value, np.int64)) for name, value in (("one", 1), ("two", 2)))
    indices = []
    for n, size in enumerate(fixed_sizes(call, count)):
        position, out = _outputs(call, target, n)
        centers = call.node("Add", [call.node("Mul", [position, two], part=f"even{n}"), one], part=f"odd{n}")
        scaled = call.node("Mul", [centers, call.initializer(f"size{n}", np.array(size, np.int64))], part=f"scaled{n}")
        divisor = call.node("Mul", [out, two], part=f"divisor{n}")
        indices.append(call.node("Div", [scaled, divisor], part=f"indices{n}"))
    _gather(call, indices)


def _gather(call: Call, indices: Sequence[str]) -> None:
    """Along each of the last axes in turn."""
    value, first = call.tensor("x"), call.rank("x") - len(indices)
    for n, name in enumerate(indices):
        part = None if n == len(indices) - 1 else f"gathered{n}"
        value = call.node("Gather", [value, name], part=part, axis=first + n)


def _outputs(call: Call, target: str, n: int) -> tuple[str, str]:
    """The positions 0, 1, .. along the n-th of the resized axes, and how many there are. Int64."""
    first, step = (call.initializer(name, np.array(value, np.int64)) for name, value in (("first", 0), ("step", 1)))
    out = call.node("Gather", [target, call.initializer(f"n{n}", np.array(n, np.int64))], part=f"out{n}", axis=0)
    return call.node("Range", [first, out, step], part=f"positions{n}"), out


# --- linear interpolation


def _linear(call: Call, target: str, count: int, mode: str) -> None:
    """Resize the last `count` axes to the sizes in the vector `target`."""
    rank, x = call.rank("x"), call.tensor("x")
    if mode == "OFFSET_CORNERS":
        _linear_with_offset(call, target, range(rank - count, rank))
        return
    # ONNX Runtime interpolates along three axes of three or of five only, and not in a vector.
    spare = [call.sizes("spare", [rank - count])] if (rank, count) in ((4, 3), (1, 1)) else []
    x = call.node("Unsqueeze", [x, *spare], part="with_spare") if spare else x
    roi = call.initializer("roi", np.array([0] * count + [1] * count, np.float32)) if mode == "ALIGN_CORNERS" else ""
    rule: dict[str, Any] = {"coordinate_transformation_mode": _TRANSFORMATIONS[mode], "axes": range(-count, 0)}
    part = "resized" if spare else None
    resized = call.node("Resize", [x, roi, "", target], part=part, mode="linear", **rule)
    if spare:
        call.node("Squeeze", [resized, *spare])


def _linear_with_offset(call: Call, target: str, axes: Sequence[int]) -> None:
    """Axis after axis, as ONNX has nothing like it."""
    value = call.tensor("x")
    for n, (axis, size) in enumerate(zip(axes, fixed_sizes(call, len(axes)), strict=True)):
        grid = _offset_grid(call, target, n, size)
        part = None if axis == axes[-1] else f"resized{n}"
        value = _interpolated(call, value, grid, axis, call.number(f"last{n}", size - 1), n, part)


def _offset_grid(call: Call, target: str, n: int, size: int) -> str:
    """Point i is min(in - 1, (i + 0.5) * max(1, in - 1) / out)."""
    position, out = (
        call.node("Cast", [name], part=f"{kind}{n}/float", to=onnx.TensorProto.FLOAT)
        for kind, name in zip(("position", "out"), _outputs(call, target, n), strict=True)
    )
    centers = call.node("Add", [position, call.number("half", 0.5)], part=f"centers{n}")
    scaled = call.node("Mul", [centers, call.number(f"length{n}", max(1, size - 1))], part=f"scaled{n}")
    points = call.node("Div", [scaled, out], part=f"points{n}")
    return call.node("Min", [points, call.number(f"last{n}", size - 1)], part=f"grid{n}")


def _interpolated(call: Call, value: str, grid: str, axis: int, last: str, n: int, part: str | None) -> str:
    """`value` at the points of `grid` along `axis`."""
    below = call.node("Floor", [grid], part=f"below{n}")
    above = call.node(
        "Min", [call.node("Add", [below, call.number("pixel", 1.0)], part=f"next{n}"), last], part=f"above{n}"
    )
    low, high = (
        call.node(
            "Gather",
            [value, call.node("Cast", [at], part=f"{side}{n}/at", to=onnx.TensorProto.INT64)],
            part=f"{side}{n}",
            axis=axis,
        )
        for side, at in (("low", below), ("high", above))
    )
    fraction = call.node("Sub", [grid, below], part=f"fraction{n}")
    weight = call.node(
        "Unsqueeze", [fraction, call.sizes(f"behind{n}", range(1, call.rank("x") - axis))], part=f"weight{n}"
    )
    step = call.node("Mul", [call.node("Sub", [high, low], part=f"change{n}"), weight], part=f"step{n}")
    return call.node("Add", [low, step], part=part)
