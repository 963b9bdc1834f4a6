"""Constants, and operations that move elements without computing.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15, iOS16 and iOS17, tensor_transformation.py and
tensor_operation.py.
"""

from math import prod

import numpy as np
import onnx

from coreml_prune_bench.mlprogram.values import Constant, Immediate, Reference
from coreml_prune_bench.runtimes.portable.batch import never
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation
from coreml_prune_bench.runtimes.portable.samples import separable, view

_HIGHEST_RANK = 16
"""More than Core ML's tensors have dimensions."""


@operation("const", batch=never)
def const(call: Call) -> None:
    call.graph.define(call.output, call.operation.attributes["val"])


# --- shapes


def _write_shape(call: Call, shape: list[int]) -> None:
    """Give x this shape. Row-major order keeps batched samples apart, whatever the leading dimension becomes."""
    target = list(shape)
    if any(call.batched("x")):
        # 0: as in the input, whatever the batch is; -1: what the other sizes leave
        target[0] = 0 if call.shape("x")[0] == shape[0] else -1
        call.node("Reshape", [call.tensor("x"), call.sizes("shape", target)])
    else:
        call.node("Reshape", [call.tensor("x"), call.sizes("shape", target)], allowzero=int(0 in target))


def _reshape_keeps_batch(call: Call) -> bool:
    return call.is_constant("shape") and separable("x")(call)


@operation("reshape", batch=_reshape_keeps_batch)
def reshape(call: Call) -> None:
    shape = call.shape("x")
    if call.is_constant("shape") and None not in shape:
        _write_shape(call, _resolved(call, call.fixed_shape("x"), call.ints("shape", [])))
    else:
        call.node("Reshape", [call.tensor("x"), _without_zeros(call)])


def _resolved(call: Call, shape: list[int], target: list[int]) -> list[int]:
    """`target` with its 0 and -1 replaced.

    A 0 is the input's size, counted from the right, and 1 where the input has no such dimension. Before iOS17 the
    ranks had to be the same where there is a 0, which comes to the same.
    """
    sizes = [1] * len(target) + shape
    resolved = [aligned if size == 0 else size for size, aligned in zip(target, sizes[len(shape) :], strict=True)]
    if resolved.count(-1) > 1:
        raise call.malformed(f"its shape {target} leaves more than one size open")
    if -1 in resolved:
        rest = prod(size for size in resolved if size != -1)
        resolved[resolved.index(-1)] = prod(shape) // rest if rest else 0
    if prod(resolved) != prod(shape) or min(resolved, default=0) < 0:
        raise call.malformed(f"its shape {target} does not hold the elements of {shape}")
    return resolved


def _without_zeros(call: Call) -> str:
    """The shape, which only running tells, with the input's sizes in place of 0. ONNX counts them from the left."""
    target = call.int64("shape")
    ones = call.sizes("ones", [1] * _HIGHEST_RANK)
    sizes = call.node("Shape", [call.tensor("x")], part="sizes")
    padded = call.node("Concat", [ones, sizes], part="padded", axis=0)
    start = call.node("Neg", [call.node("Shape", [target], part="rank")], part="start")
    aligned = call.node("Slice", [padded, start, call.sizes("end", [np.iinfo(np.int64).max])], part="aligned")
    is_zero = call.node("Equal", [target, call.sizes("zero", [0])], part="is_zero")
    return call.node("Where", [is_zero, aligned, target], part="target")


@operation("reshape_like", batch=lambda call: any(call.batched("x")) and separable("x", "ref_tensors")(call))
def reshape_like(call: Call) -> None:
    begins, ends, masks = (_numbers(call, parameter) for parameter in ("begins", "ends", "end_masks"))
    shape: list[int] = []
    for type_, begin, end, mask in zip(call.types("ref_tensors"), begins, ends, masks, strict=True):
        sizes = type_.shape[begin:] if mask else type_.shape[begin:end]
        if not type_.rank_known or None in sizes:
            raise call.unsupported("the shape that it takes over is not fixed")
        shape += [size or 0 for size in sizes]
    _write_shape(call, shape)


def _numbers(call: Call, parameter: str) -> list[int]:
    """The elements of a tuple of scalars."""
    numbers = []
    for argument in call.operation.inputs[parameter]:
        constant: Constant | None = call.graph.constant(argument.name) if isinstance(argument, Reference) else argument
        if not isinstance(constant, Immediate):
            raise call.unsupported(f"parameter {parameter!r} is not a constant")
        numbers.append(int(call.graph.decode(constant)))
    return numbers


@operation("flatten2d", batch=separable("x"))
def flatten2d(call: Call) -> None:
    shape, axis = call.shape("x"), call.integer("axis", 1)
    if None not in shape:
        sizes = call.fixed_shape("x")
        _write_shape(call, [prod(sizes[:axis]), prod(sizes[axis:])])
    else:
        call.node("Flatten", [call.tensor("x")], axis=axis)


@operation("expand_dims", batch=separable("x"))
def expand_dims(call: Call) -> None:
    axes = call.ints("axes", [])
    rank = len(call.shape("x")) + len(axes)
    axes = sorted(axis % rank for axis in axes)
    if any(call.batched("x")) and 0 in axes:
        _write_shape(call, list(call.output_type.fixed_shape))
    else:
        call.node("Unsqueeze", [call.tensor("x"), call.sizes("axes", axes)])


@operation("squeeze", batch=separable("x"))
def squeeze(call: Call) -> None:
    """Of the axes asked for (all, where none are given) only those of size 1 go, as in PyTorch."""
    shape = call.shape("x")
    asked = {axis % len(shape) for axis in call.ints("axes", range(len(shape)))}
    axes = [axis for axis in sorted(asked) if shape[axis] == 1]
    if not axes:
        call.same_as("x")
    elif any(call.batched("x")) and 0 in axes:
        _write_shape(call, list(call.output_type.fixed_shape))
    else:
        call.node("Squeeze", [call.tensor("x"), call.sizes("axes", axes)])


@operation("shape", batch=lambda call: call.type("x").fixed)
def shape(call: Call) -> None:
    if call.type("x").fixed:
        call.define(np.array(call.shape("x"), np.int32))  # of one sample, as all of the program's arithmetic with it
    else:
        call.node("Cast", [call.node("Shape", [call.tensor("x")], part="int64")], to=onnx.TensorProto.INT32)


# --- order


@operation("transpose", batch=separable("x"))
def transpose(call: Call) -> None:
    rank = len(call.shape("x"))
    perm = [axis % rank for axis in call.ints("perm", [])]
    apart = view(call, along_leading=perm[:1] != [0])
    perm = [*range(apart.shift), *(axis + apart.shift for axis in perm)]
    apart.node("Transpose", [apart.tensor("x")], perm=perm)


@operation("reverse", batch=separable("x"))
def reverse(call: Call) -> None:
    rank = len(call.shape("x"))
    axes = [axis % rank for axis in call.ints("axes", range(rank))]
    if not axes:
        call.same_as("x")
        return
    apart = view(call, along_leading=0 in axes)
    start, end, step = (
        call.sizes(part, [value] * len(axes))
        for part, value in (("start", -1), ("end", np.iinfo(np.int64).min), ("step", -1))
    )
    apart.node("Slice", [apart.tensor("x"), start, end, call.sizes("axes", [a + apart.shift for a in axes]), step])


@operation("reverse_sequence")
def reverse_sequence(call: Call) -> None:
    rank = len(call.shape("x"))
    along, batch = (call.integer(parameter, 0) % rank for parameter in ("seq_axis", "batch_axis"))
    if along == batch:
        raise call.malformed("seq_axis and batch_axis are the same")
    x, lengths = call.tensor("x"), call.int64("lengths")
    if {along, batch} == {0, 1}:
        call.node("ReverseSequence", [x, lengths], time_axis=along, batch_axis=batch)
        return
    perm = [batch, along, *(axis for axis in range(rank) if axis not in (batch, along))]
    moved = call.node("Transpose", [x], part="moved", perm=perm)
    reversed_ = call.node("ReverseSequence", [moved, lengths], part="reversed", time_axis=1, batch_axis=0)
    call.node("Transpose", [reversed_], perm=[int(axis) for axis in np.argsort(perm)])


# --- several to one, one to several


@operation("concat", batch=separable("values"))
def concat(call: Call) -> None:
    rank, axis = len(call.shape("values")), call.integer("axis", 0)
    if rank == 0:
        _stack(call, 0)
    elif call.flag("interleave") and len(call.types("values")) > 1:
        _interleave(call, axis % rank)
    else:
        axis %= rank
        apart = view(call, along_leading=axis == 0)
        apart.node("Concat", apart.tensors("values"), axis=axis + apart.shift)


def _interleave(call: Call, axis: int) -> None:
    """One slice of each value in turn: stacked behind the axis, then merged with it."""
    sizes = call.fixed_shape("values")
    apart = view(call, along_leading=axis == 0)
    axes = call.sizes("axes", [axis + 1 + apart.shift])
    values = [
        call.node("Unsqueeze", [value, axes], part=f"unsqueezed{position}")
        for position, value in enumerate(apart.tensors("values"))
    ]
    stacked = call.node("Concat", values, part="stacked", axis=axis + 1 + apart.shift)
    sizes[axis] *= len(values)
    # The batch leads in either view: 0 leaves it as it is.
    batched = bool(call.batched_parameters())
    target = [0, *sizes[1 - apart.shift :]] if batched else sizes
    apart.node("Reshape", [stacked, call.sizes("shape", target)], allowzero=int(not batched))


@operation("stack", batch=separable("values"))
def stack(call: Call) -> None:
    _stack(call, call.integer("axis", 0) % (len(call.shape("values")) + 1))


def _stack(call: Call, axis: int) -> None:
    apart = view(call, along_leading=axis == 0)
    axes = call.sizes("axes", [axis + apart.shift])
    values = [
        call.node("Unsqueeze", [value, axes], part=f"unsqueezed{position}")
        for position, value in enumerate(apart.tensors("values"))
    ]
    apart.node("Concat", values, axis=axis + apart.shift)


@operation("split", batch=separable("x"))
def split(call: Call) -> None:
    shape = call.shape("x")
    axis, parts = call.integer("axis", 0) % len(shape), len(call.outputs)
    apart = view(call, along_leading=axis == 0)
    x, size = apart.tensor("x"), shape[axis]
    if call.has("split_sizes"):
        sizes = call.ints("split_sizes", [])
    elif size is None:
        apart.nodes("Split", [x], call.outputs, axis=axis + apart.shift, num_outputs=parts)
        return
    else:
        sizes = [size // parts] * parts
    if len(sizes) != parts or (size is not None and sum(sizes) != size):
        raise call.malformed(f"it splits {size} into {parts} parts of {sizes}")
    apart.nodes("Split", [x, call.sizes("sizes", sizes)], call.outputs, axis=axis + apart.shift)


@operation("tile", batch=lambda call: call.is_constant("reps") and separable("x")(call))
def tile(call: Call) -> None:
    if not call.is_constant("reps"):
        call.node("Tile", [call.tensor("x"), call.int64("reps")])
        return
    reps = call.ints("reps", [])
    if min(reps) < 1:
        raise call.malformed(f"it repeats {reps} times")
    if max(reps) == 1:
        call.same_as("x")
        return
    apart = view(call, along_leading=reps[0] != 1)
    apart.node("Tile", [apart.tensor("x"), call.sizes("reps", [1] * apart.shift + reps)])


# --- padding

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@operation("pad", batch=lambda call: call.is_constant("pad") and separable("x")(call))
def pad(call: Call) -> None:
    mode = call.text("mode", "constant")
    if mode not in _PAD_MODES:
        raise call.malformed(f"mode {mode!r}, expected one of {', '.join(_PAD_MODES)}")
    value = [call.tensor("constant_val")] if mode == "constant" and call.has("constant_val") else []
    if not call.is_constant("pad"):
        call.node("Pad", [call.tensor("x"), _dynamic_pads(call), *value], mode=_PAD_MODES[mode])
        return
    pads = _pads(call, mode)  # [rank, 2]
    if not pads.any():
        call.same_as("x")
        return
    apart = view(call, along_leading=bool(pads[0].any()))
    pads = np.concatenate([np.zeros((apart.shift, 2), np.int64), pads])
    apart.node(
        "Pad", [apart.tensor("x"), call.sizes("pads", pads.T.reshape(-1).tolist()), *value], mode=_PAD_MODES[mode]
    )


def _pads(call: Call, mode: str) -> np.ndarray:
    """What to add before and after each dimension: those in front that the argument leaves out get nothing."""
    shape = call.shape("x")
    given = call.array("pad").astype(np.int64)
    if given.ndim != 1 or given.size % 2 or given.size > 2 * len(shape) or (given < 0).any():
        raise call.malformed(f"its padding {given.tolist()} does not fit a tensor of rank {len(shape)}")
    pads = np.zeros((len(shape), 2), np.int64)
    pads[len(shape) - given.size // 2 :] = given.reshape(-1, 2)
    for size, most in zip(shape, pads.max(axis=1), strict=True):
        if size is not None and mode != "constant" and most > (size - 1 if mode == "reflect" else size):
            raise call.malformed(f"mode {mode!r} cannot add {most} to a dimension of {size}")
    return pads


def _dynamic_pads(call: Call) -> str:
    """From before and after for each dimension to all before, then all after. Here every dimension has both."""
    pairs = call.node("Reshape", [call.int64("pad"), call.sizes("pairs_shape", [-1, 2])], part="pairs")
    columns = call.node("Transpose", [pairs], part="columns", perm=[1, 0])
    return call.node("Reshape", [columns, call.sizes("flat", [-1])], part="pads")


# --- sums


@operation("cumsum", batch=lambda call: call.integer("axis", 0) % len(call.shape("x")) != 0)
def cumsum(call: Call) -> None:
    axis = call.initializer("axis", np.array(call.integer("axis", 0), np.int64))
    exclusive, reverse = int(call.flag("exclusive")), int(call.flag("reverse"))
    call.node("CumSum", [call.tensor("x"), axis], exclusive=exclusive, reverse=reverse)
