"""Parts, borders and copies of tensors."""

import numpy as np

from coreml_prune_bench.mlprogram.program import Operation
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation, respelt
from coreml_prune_bench.runtimes.portable.samples import separable, view

_PAD_MODES = {"constant": "constant", "replicate": "edge", "reflect": "reflect", "circular": "wrap"}


@operation("coreai.pad", batch=lambda call: call.is_constant("padding") and separable("x")(call))
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
    x = call.tensor("x")
    shape = call.fixed_shape("x")
    pairs = _pairs(call, len(shape))
    if call.batched_parameters() and pairs[0].any():
        raise call.unsupported("it pads the leading dimension symmetrically")
    axes = [axis for axis in range(len(shape)) if pairs[axis].any()]
    for axis in axes:
        before, after = (int(count) for count in pairs[axis])
        if max(before, after) > shape[axis]:
            raise call.malformed(f"it mirrors {max(before, after)} of {shape[axis]}")
        call.bounded(shape[axis] + before + after)
        positions = np.pad(np.arange(shape[axis]), (before, after), mode="symmetric")
        part = None if axis == axes[-1] else f"axis{axis}"
        x = call.node("Gather", [x, call.initializer(f"positions{axis}", positions)], part=part, axis=axis)
    if not axes:
        call.same_as("x")


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
    shape = call.fixed_shape("x")
    starts, ends, steps = (call.ints(parameter, []) for parameter in ("begin", "end", "strides"))
    if not len(starts) == len(ends) == len(steps) == len(shape) or 0 in steps:
        raise call.malformed(f"from {starts} to {ends} in steps of {steps} does not slice {shape}")
    picked = [_resolved(*bounds) for bounds in zip(starts, ends, steps, shape, strict=True)]
    x = call.tensor("x")
    if call.batched_parameters() and picked[0] != range(shape[0]):
        raise call.unsupported("it slices the leading dimension backwards")
    axes = [axis for axis, positions in enumerate(picked) if positions != range(shape[axis])]
    for axis in axes:
        positions = call.initializer(f"positions{axis}", np.array(picked[axis], np.int64))
        x = call.node("Gather", [x, positions], part=None if axis == axes[-1] else f"axis{axis}", axis=axis)
    if not axes:
        call.same_as("x")


def _constant_bounds(call: Call) -> bool:
    return all(call.is_constant(parameter) for parameter in ("begin", "end", "strides"))


def _resolved(start: int, end: int, step: int, size: int) -> range:
    """Wrapped once where below what is allowed, then clamped: to [0, size], backwards [0, size-1] and [-1, size-1]."""
    lowest_end = 0 if step > 0 else -1
    highest = size if step > 0 else size - 1
    start = start + size if start < 0 else start
    end = end + size if end < lowest_end else end
    return range(min(max(start, 0), highest), min(max(end, lowest_end), highest), step)


@operation("coreai.slice_update", batch=lambda call: False)
def slice_update(call: Call) -> None:
    """x with `update` in place of the slice."""
    shape = call.fixed_shape("x")
    starts, ends, steps = (call.ints(parameter, []) for parameter in ("begin", "end", "strides"))
    picked = [np.array(_resolved(*b), np.int64) for b in zip(starts, ends, steps, shape, strict=True)]
    call.bounded(*(len(positions) for positions in picked), len(shape))
    grid = np.stack(np.meshgrid(*picked, indexing="ij"), axis=-1) if picked else np.zeros((0,), np.int64)
    call.node("ScatterND", [call.tensor("x"), call.initializer("positions", grid), call.tensor("update")])


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


@operation("coreai.create_complex", "coreai.real_part", "coreai.imaginary_part")
def complex_numbers(call: Call) -> None:
    raise call.unsupported("it works on complex numbers")
