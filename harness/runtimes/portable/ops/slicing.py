"""Parts of a tensor: slices, crops and windows; and a slice that is replaced.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15 and iOS17, tensor_transformation.py; iOS15/image_resizing.py
(crop); iOS18/tensor_transformation.py (slice_update).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from coreml_prune_bench.runtimes.portable.batch import only
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation
from coreml_prune_bench.runtimes.portable.samples import separable, view

_LAST = int(np.iinfo(np.int64).max)
"""Beyond the last element, as ONNX has it."""
_FIRST = -_LAST
"""Before the first element, when going backwards."""


# --- slice_by_index


@dataclass(frozen=True)
class _Slice:
    """Along one axis, as NumPy means it: None where the end of the axis is meant. `squeezed`: one element."""

    start: int | None
    stop: int | None
    step: int
    squeezed: bool

    def takes_all(self, size: int | None) -> bool:
        from_start = self.start in (None, 0)
        to_end = self.stop is None or (size is not None and self.stop >= size)
        return from_start and to_end and self.step == 1 and not self.squeezed


def _slices(call: Call) -> list[_Slice]:
    """What is taken along each axis."""
    rank = len(call.shape("x"))
    begin, end = call.ints("begin", []), call.ints("end", [])
    step = _steps(call)
    no_begin, no_end, squeezed = (_mask(call, name) for name in ("begin_mask", "end_mask", "squeeze_mask"))
    if not len(begin) == len(end) == len(step) == len(squeezed) == rank or 0 in step:
        raise call.malformed(f"from {begin} to {end} in steps of {step} does not slice a tensor of rank {rank}")
    return [
        _element(0 if no_begin[i] else begin[i])
        if squeezed[i]
        else _Slice(None if no_begin[i] else begin[i], None if no_end[i] else end[i], step[i], squeezed=False)
        for i in range(rank)
    ]


def _element(position: int) -> _Slice:
    return _Slice(position, None if position == -1 else position + 1, 1, squeezed=True)


def _steps(call: Call) -> list[int]:
    return call.ints("stride", [1] * len(call.shape("x")))


def _mask(call: Call, parameter: str) -> list[bool]:
    return [bool(flag) for flag in call.ints(parameter, [0] * len(call.shape("x")))]


def _bounds_are_constant(call: Call) -> bool:
    return call.is_constant("begin") and call.is_constant("end")


@operation("slice_by_index", batch=lambda call: _bounds_are_constant(call) and separable("x")(call))
def slice_by_index(call: Call) -> None:
    if not _bounds_are_constant(call):
        _slice_dynamically(call)
        return
    shape, slices = call.shape("x"), _slices(call)
    axes = [axis for axis, slice_ in enumerate(slices) if not slice_.takes_all(shape[axis])]
    if not axes:
        call.same_as("x")
        return
    apart = view(call, along_leading=0 in axes)
    x, moved = apart.tensor("x"), [axis + apart.shift for axis in axes]
    if len(axes) == 1 and slices[axes[0]].squeezed:
        position = call.initializer("position", np.array(slices[axes[0]].start, np.int64))
        apart.node("Gather", [x, position], axis=moved[0])
        return
    squeezed = [axis + apart.shift for axis in axes if slices[axis].squeezed]
    inputs = [x, *_slice_inputs(call, [slices[axis] for axis in axes], moved)]
    if squeezed:
        sliced = call.node("Slice", inputs, part="sliced")
        apart.node("Squeeze", [sliced, call.sizes("squeezed", squeezed)])
    else:
        apart.node("Slice", inputs)


def _slice_inputs(call: Call, slices: list[_Slice], axes: list[int]) -> list[str]:
    """Starts, ends, axes and steps for ONNX's Slice."""
    starts = [(0 if s.step > 0 else _LAST) if s.start is None else s.start for s in slices]
    ends = [(_LAST if s.step > 0 else _FIRST) if s.stop is None else s.stop for s in slices]
    steps = [s.step for s in slices]
    values = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    return [call.sizes(part, value) for part, value in values.items()]


def _slice_dynamically(call: Call) -> None:
    starts, ends = _dynamic_bounds(call)
    rank = len(call.shape("x"))
    squeezed = [axis for axis, flag in enumerate(_mask(call, "squeeze_mask")) if flag]
    inputs = [call.tensor("x"), starts, ends, call.sizes("axes", range(rank)), call.sizes("steps", _one_steps(call))]
    if squeezed:
        call.node("Squeeze", [call.node("Slice", inputs, part="sliced"), call.sizes("squeezed", squeezed)])
    else:
        call.node("Slice", inputs)


def _one_steps(call: Call) -> list[int]:
    """The steps, and 1 where one element is taken."""
    return [1 if one else step for step, one in zip(_steps(call), _mask(call, "squeeze_mask"), strict=True)]


def _dynamic_bounds(call: Call) -> tuple[str, str]:
    """Starts and ends for ONNX's Slice over all axes, as far as only running tells."""
    steps = _one_steps(call)
    no_begin, no_end, one = (np.array(_mask(call, name)) for name in ("begin_mask", "end_mask", "squeeze_mask"))
    first = call.sizes("first", [0 if step > 0 else _LAST for step in steps])
    last = call.sizes("last", [_LAST if step > 0 else _FIRST for step in steps])
    begin = _where(call, "starts", no_begin, first, call.int64("begin"))
    end = _where(call, "ends", no_end, last, call.int64("end"))
    if not one.any():
        return begin, end
    following = call.node("Add", [begin, call.sizes("one", [1])], part="following")
    is_last = call.node("Equal", [following, call.sizes("zero", [0])], part="is_last")
    after = call.node("Where", [is_last, last, following], part="after")
    return begin, _where(call, "ends_of_one", one, after, end)


def _where(call: Call, part: str, mask: np.ndarray, chosen: str, otherwise: str) -> str:
    if not mask.any():
        return otherwise
    return call.node("Where", [call.initializer(f"{part}_mask", mask), chosen, otherwise], part=part)


# --- slice_update


@operation("slice_update")
def slice_update(call: Call) -> None:
    """x with `update` in the place of a slice: a scatter over x's elements in row-major order."""
    flat = call.sizes("flat", [-1])
    positions = _constant_positions(call) if _bounds_are_constant(call) else _dynamic_positions(call)
    x = call.node("Reshape", [call.tensor("x"), flat], part="elements")
    update = call.node("Reshape", [call.tensor("update"), flat], part="update")
    scattered = call.node("ScatterElements", [x, positions, update], part="scattered", axis=0)
    call.node("Reshape", [scattered, call.sizes("shape", call.fixed_shape("x"))])


def _constant_positions(call: Call) -> str:
    axes = [
        np.arange(size)[s.start : s.stop : s.step] for size, s in zip(call.fixed_shape("x"), _slices(call), strict=True)
    ]
    positions = np.ravel_multi_index(np.ix_(*axes), call.fixed_shape("x")).reshape(-1)
    return call.initializer("positions", positions.astype(np.int64))


def _dynamic_positions(call: Call) -> str:
    """The sum over the axes of the chosen indices times the distance between neighbours."""
    starts, ends = _dynamic_bounds(call)
    shape, steps = call.fixed_shape("x"), _one_steps(call)
    total = call.sizes("origin", [0])
    for axis, (size, step) in enumerate(zip(shape, steps, strict=True)):
        distance = prod(shape[axis + 1 :])
        offsets = (np.arange(size) * distance).reshape([-1] + [1] * (len(shape) - axis - 1))
        index = call.sizes(f"axis{axis}", [axis])
        start, end = (
            call.node("Gather", [bounds, index], part=f"{part}{axis}")
            for part, bounds in (("start", starts), ("end", ends))
        )
        inputs = [call.initializer(f"offsets{axis}", offsets.astype(np.int64)), start, end, call.sizes("leading", [0])]
        chosen = call.node("Slice", [*inputs, call.sizes(f"step{axis}", [step])], part=f"chosen{axis}")
        total = call.node("Add", [total, chosen], part=f"positions{axis}")
    return call.node("Reshape", [total, call.sizes("flat", [-1])], part="positions")


# --- others


@operation(
    "slice_by_size",
    batch=lambda call: call.is_constant("begin") and call.is_constant("size") and separable("x")(call),
)
def slice_by_size(call: Call) -> None:
    shape = call.shape("x")
    if not (call.is_constant("begin") and call.is_constant("size")) or None in shape:
        _slice_by_dynamic_size(call)
        return
    begin, sizes = call.ints("begin", []), call.ints("size", [])
    starts = [start + (size or 0) if start < 0 else start for start, size in zip(begin, shape, strict=True)]
    ends = [whole or 0 if size == -1 else start + size for start, size, whole in zip(starts, sizes, shape, strict=True)]
    if any(not 0 <= s <= e <= (size or 0) for s, e, size in zip(starts, ends, shape, strict=True)):
        raise call.malformed(f"from {begin}, {sizes} elements are not inside {list(shape)}")
    slices = [_Slice(start, end, 1, squeezed=False) for start, end in zip(starts, ends, strict=True)]
    axes = [axis for axis, slice_ in enumerate(slices) if not slice_.takes_all(shape[axis])]
    if not axes:
        call.same_as("x")
        return
    apart = view(call, along_leading=0 in axes)
    moved = [axis + apart.shift for axis in axes]
    apart.node("Slice", [apart.tensor("x"), *_slice_inputs(call, [slices[axis] for axis in axes], moved)])


def _slice_by_dynamic_size(call: Call) -> None:
    begin, size = call.int64("begin"), call.int64("size")
    shape = call.node("Shape", [call.tensor("x")], part="shape")
    from_end = call.node("Less", [begin, call.sizes("zero", [0])], part="from_end")
    counted = call.node("Add", [begin, shape], part="counted")
    start = call.node("Where", [from_end, counted, begin], part="start")
    to_end = call.node("Equal", [size, call.sizes("all", [-1])], part="to_end")
    after = call.node("Add", [start, size], part="after")
    end = call.node("Where", [to_end, shape, after], part="end")
    call.node("Slice", [call.tensor("x"), start, end])


@operation("crop", batch=only("x", rank=3))
def crop(call: Call) -> None:
    """Take so much off before and after, along the last two dimensions."""
    (top, bottom), (left, right) = call.ints("crop_height", []), call.ints("crop_width", [])
    rank = len(call.shape("x"))
    slices = [_Slice(low, -high or None, 1, squeezed=False) for low, high in ((top, bottom), (left, right))]
    call.node("Slice", [call.tensor("x"), *_slice_inputs(call, slices, [rank - 2, rank - 1])])


@operation("sliding_windows", batch=separable("x"))
def sliding_windows(call: Call) -> None:
    shape = call.shape("x")
    axis, size, stride = call.integer("axis", 0) % len(shape), call.integer("size", 1), call.integer("stride", 1)
    length = shape[axis]
    if length is None:
        raise call.unsupported("the length of its axis is not fixed")
    call.bounded(length - size + 1, size)
    starts = np.arange(0, length - size + 1, stride)
    windows = starts[:, np.newaxis] + np.arange(size)  # [windows, size]
    apart = view(call, along_leading=axis == 0)
    positions = call.initializer("positions", windows.astype(np.int64))
    apart.node("Gather", [apart.tensor("x"), positions], axis=axis + apart.shift)
