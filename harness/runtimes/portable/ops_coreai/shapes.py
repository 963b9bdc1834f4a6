"""Parts, borders and copies of tensors."""

from collections.abc import Sequence

import numpy as np

from coreml_prune_bench.mlprogram.program import Operation
from coreml_prune_bench.runtimes.portable.batch import only
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation, respelt
from coreml_prune_bench.runtimes.portable.samples import separable, view

_PAD_MODES = {"constant": "constant", "replicate": "edge", "reflect": "reflect", "circular": "wrap"}


def _pad_keeps_batch(call: Call) -> bool:
    """What is padded may be said to have any size, where the padding was an argument of a graph once."""
    if not call.is_constant("padding"):
        return False
    return separable("x")(call) or (only("x")(call) and not any(call.ints("padding", [])[:2]))


@operation("coreai.pad", batch=_pad_keeps_batch)
def pad(call: Call) -> None:
    """What to add before and after each dimension stands in pairs."""
    mode, rank = call.text("padding_mode", "constant"), call.rank("x")
    if mode == "symmetric":
        _pad_symmetrically(call)
        return
    if mode not in _PAD_MODES:
        raise call.malformed(f"padding_mode is {mode!r}")
    value = [call.tensor("value")] if mode == "constant" else []
    if not call.is_constant("padding"):
        pairs = call.node("Reshape", [call.int64("padding"), call.sizes("pairs_shape", [-1, 2])], part="pairs")
        columns = call.node("Transpose", [pairs], part="columns", perm=[1, 0])
        flat = call.node("Reshape", [columns, call.sizes("flat", [-1])], part="pads")
        call.node("Pad", [call.tensor("x"), flat, *value], mode=_PAD_MODES[mode])
        return
    pads = _pairs(call, rank)
    if not pads.any():
        call.same_as("x")
        return
    apart = view(call, along_leading=bool(pads[0].any()))
    pads = np.concatenate([np.zeros((apart.shift, 2), np.int64), pads])
    sizes = call.sizes("pads", pads.T.reshape(-1).tolist())
    apart.node("Pad", [apart.tensor("x"), sizes, *value], mode=_PAD_MODES[mode])


def _pairs(call: Call, rank: int) -> np.ndarray:
    """[rank, 2]"""
    given = call.ints("padding", [])
    if len(given) != 2 * rank or min(given, default=0) < 0:
        raise call.malformed(f"its padding {given} does not fit a tensor of rank {rank}")
    return np.array(given, np.int64).reshape(rank, 2)


def _pad_symmetrically(call: Call) -> None:
    """Mirrored at the border, the border's own element included: rows that are picked by their positions."""
    shape = call.fixed_shape("x")
    pairs = _pairs(call, len(shape))
    picked = []
    for size, (before, after) in zip(shape, pairs.tolist(), strict=True):
        if max(before, after) > size:
            raise call.malformed(f"it mirrors {max(before, after)} of {size}")
        call.bounded(size + before + after)
        picked.append(np.pad(np.arange(size), (before, after), mode="symmetric"))
    _pick(call, picked)


def _pick(call: Call, positions: Sequence[np.ndarray]) -> None:
    """x with the elements at `positions` along each axis."""
    shape = call.fixed_shape("x")
    axes = [a for a, picked in enumerate(positions) if not np.array_equal(picked, np.arange(shape[a]))]
    if not axes:
        call.same_as("x")
        return
    apart = view(call, along_leading=0 in axes)
    x = apart.tensor("x")
    for axis in axes[:-1]:
        rows = call.initializer(f"positions{axis}", positions[axis])
        x = call.node("Gather", [x, rows], part=f"axis{axis}", axis=axis + apart.shift)
    apart.node("Gather", [x, call.initializer("positions", positions[axes[-1]])], axis=axes[-1] + apart.shift)


def _slices_like_numpy(call: Call) -> bool:
    """Backwards, an end of -1 is before the first element here, and the last one in NumPy."""
    return call.is_constant("strides") and all(step > 0 for step in call.ints("strides", []))


def _spelt_slice(call: Call) -> Operation:
    return respelt(call.operation, "slice_by_index", renamed={"strides": "stride"})


@operation("coreai.slice", batch=lambda call: separable("x")(call) and _constant_bounds(call))
def slice_(call: Call) -> None:
    from coreml_prune_bench.runtimes.portable.ops.slicing import slice_by_index

    if _slices_like_numpy(call):
        slice_by_index(Call(call.graph, _spelt_slice(call)))
        return
    _pick(call, _positions(call))


def _constant_bounds(call: Call) -> bool:
    return all(call.is_constant(parameter) for parameter in ("begin", "end", "strides"))


def _resolved(start: int, end: int, step: int, size: int) -> range:
    """Wrapped once where below what is allowed, then clamped: to [0, size], backwards [0, size-1] and [-1, size-1]."""
    lowest_end = 0 if step > 0 else -1
    highest = size if step > 0 else size - 1
    start = start + size if start < 0 else start
    end = end + size if end < lowest_end else end
    return range(min(max(start, 0), highest), min(max(end, lowest_end), highest), step)


def _positions(call: Call) -> list[np.ndarray]:
    """Int64, of the elements that are sliced along each axis."""
    shape = call.fixed_shape("x")
    starts, ends, steps = (call.ints(parameter, []) for parameter in ("begin", "end", "strides"))
    if not len(starts) == len(ends) == len(steps) == len(shape) or 0 in steps:
        raise call.malformed(f"from {starts} to {ends} in steps of {steps} does not slice {shape}")
    return [np.array(_resolved(*bounds), np.int64) for bounds in zip(starts, ends, steps, shape, strict=True)]


def _update_keeps_batch(call: Call) -> bool:
    """The leading dimension is whole, and each sample's own, or one that all samples share."""
    known = call.type("x").fixed and call.type("update").fixed and _constant_bounds(call)
    return (
        known
        and set(call.batched_parameters()) <= {"x", "update"}
        and np.array_equal(_positions(call)[0], np.arange(call.fixed_shape("x")[0]))
        and (set(call.batched_parameters()) == {"x", "update"} or call.shape("x")[0] == 1)
    )


@operation("coreai.slice_update", batch=_update_keeps_batch)
def slice_update(call: Call) -> None:
    """x with `update` in place of the slice: brought to the places that it has there, and taken where the slice is."""
    shape, positions = call.fixed_shape("x"), _positions(call)
    update, inside = call.tensor("update"), np.ones((), bool)
    for axis, (size, picked) in enumerate(zip(shape, positions, strict=True)):
        if np.array_equal(picked, np.arange(size)):
            continue
        call.bounded(size)
        source, taken = np.zeros(size, np.int64), np.zeros(size, bool)
        source[picked], taken[picked] = np.arange(len(picked)), True
        rows = call.initializer(f"positions{axis}", source)
        update = call.node("Gather", [update, rows], part=f"axis{axis}", axis=axis)
        inside = inside & taken.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    call.node("Where", [call.initializer("inside", inside), update, call.tensor("x")])


@operation("coreai.split", batch=lambda call: call.is_constant("sizes") and separable("x")(call))
def split(call: Call) -> None:
    """Into parts of one size, the last one perhaps smaller, or into parts of the sizes given."""
    shape = call.fixed_shape("x")
    axis = call.integer("axis", 0) % len(shape)
    sizes = call.ints("sizes", [])
    if call.rank("sizes") == 0:
        (size,) = sizes
        if size < 1:
            raise call.malformed(f"it splits into parts of {size}")
        sizes = [min(size, shape[axis] - start) for start in range(0, shape[axis], size)]
    if len(sizes) != len(call.outputs) or sum(sizes) != shape[axis]:
        raise call.malformed(f"it splits {shape[axis]} into {len(call.outputs)} parts of {sizes}")
    apart = view(call, along_leading=axis == 0)
    parts = call.sizes("sizes", sizes)
    apart.nodes("Split", [apart.tensor("x"), parts], call.outputs, axis=axis + apart.shift)


def _leaves_leading(call: Call) -> bool:
    """A batched value keeps its leading dimension and its rank."""
    return (
        call.batched_parameters() == ["x"]
        and call.output_type.fixed
        and len(call.output_type.shape) == call.rank("x")
        and call.output_type.shape[:1] == call.shape("x")[:1]
    )


@operation("coreai.broadcast_to", batch=_leaves_leading)
def broadcast_to(call: Call) -> None:
    if not call.is_constant("shape"):
        call.node("Expand", [call.tensor("x"), call.int64("shape")])
        return
    _expand(call, call.ints("shape", []))


@operation("coreai.broadcast_in_dims", batch=_leaves_leading)
def broadcast_in_dims(call: Call) -> None:
    if not call.is_constant("sizes"):
        raise call.unsupported("the sizes that it broadcasts to are not constants")
    shape: list[int] = [1] * call.rank("x")
    for axis, size in zip(call.ints("axes", []), call.ints("sizes", []), strict=True):
        shape[axis] = size
    _expand(call, shape)


def _expand(call: Call, shape: list[int]) -> None:
    if call.batched_parameters():
        shape = [1, *shape[1:]]  # each sample's own rows stay
    call.bounded(*shape)
    call.node("Expand", [call.tensor("x"), call.sizes("shape", shape)])


@operation("coreai.broadcast_shapes")
def broadcast_shapes(call: Call) -> None:
    call.define(np.array(np.broadcast_shapes(call.ints("x", []), call.ints("y", [])), np.int32))


@operation("coreai.blockwise_shift_scale")
def blockwise_shift_scale(call: Call) -> None:
    """scale * (x - offset1) + offset2, where each of these is that of a block of elements."""
    from coreml_prune_bench.mlprogram.decompress import blockwise_shift_scale as shift_scale

    scale = call.array("scale").astype(np.float32)
    dense = shift_scale(call.array("x").astype(np.float32), scale, call.array("offset1").astype(np.float32))
    blocks = [size // count for size, count in zip(dense.shape, scale.shape, strict=True)]
    call.bounded(dense.size)
    offset = call.array("offset2").astype(np.float32)
    for axis, count in enumerate(blocks):
        offset = offset.repeat(count, axis=axis)
    call.define((dense + offset).astype(np.float32))
