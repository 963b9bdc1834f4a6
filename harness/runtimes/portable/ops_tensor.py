"""Constants, and operations that move elements without computing.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15/tensor_transformation.py and tensor_operation.py.
"""

import numpy as np

from harness.runtimes.portable.batch import never
from harness.runtimes.portable.graph import Call
from harness.runtimes.portable.registry import operation


@operation("const", batch=never)
def const(call: Call) -> None:
    call.graph.define(call.output, call.operation.attributes["val"])


def _reshape_keeps_batch(call: Call) -> bool:
    """Row-major order keeps samples apart as long as both sides begin with the batch."""
    return call.batched_parameters() == ["x"] and call.output_type.shape[:1] == (1,)


@operation("reshape", batch=_reshape_keeps_batch)
def reshape(call: Call) -> None:
    shape = call.output_type.shape
    if None in shape:
        raise call.unsupported("its output's shape is not fixed")
    target = np.array(shape, np.int64)
    if any(call.batched("x")) and _reshape_keeps_batch(call):
        target[0] = 0  # ONNX: as in the input, whatever the batch is
    call.node("Reshape", [call.tensor("x"), call.initializer("shape", target)])


def _transpose_keeps_batch(call: Call) -> bool:
    return call.ints("perm", [])[0] % len(call.shape("x")) == 0


@operation("transpose", batch=_transpose_keeps_batch)
def transpose(call: Call) -> None:
    rank = len(call.shape("x"))
    call.node("Transpose", [call.tensor("x")], perm=[axis % rank for axis in call.ints("perm", [])])


def _expand_keeps_batch(call: Call) -> bool:
    rank = len(call.output_type.shape)
    return all(axis % rank != 0 for axis in call.ints("axes", []))


@operation("expand_dims", batch=_expand_keeps_batch)
def expand_dims(call: Call) -> None:
    axes = call.initializer("axes", np.array(call.ints("axes", []), np.int64))
    call.node("Unsqueeze", [call.tensor("x"), axes])


def _squeezed_axes(call: Call) -> list[int]:
    """The axes that go: of those asked for (all, where none are given) the ones of size 1, as in PyTorch."""
    shape = call.shape("x")
    axes = {axis % len(shape) for axis in call.ints("axes", range(len(shape)))}
    return [axis for axis in sorted(axes) if shape[axis] == 1]


@operation("squeeze", batch=lambda call: 0 not in _squeezed_axes(call))
def squeeze(call: Call) -> None:
    axes = _squeezed_axes(call)
    if axes:
        call.node("Squeeze", [call.tensor("x"), call.initializer("axes", np.array(axes, np.int64))])
    else:
        call.same_as("x")


def _concat_keeps_batch(call: Call) -> bool:
    """Every part needs the batch, not only some: a constant part has one row."""
    return all(call.batched("values")) and call.integer("axis", 0) % len(call.output_type.shape) != 0


@operation("concat", batch=_concat_keeps_batch)
def concat(call: Call) -> None:
    if call.flag("interleave"):
        raise call.unsupported("interleave is set")
    call.node("Concat", call.tensors("values"), axis=call.integer("axis", 0))
