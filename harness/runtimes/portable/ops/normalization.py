"""Normalization.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15/normalization.py; iOS17/normalization.py only widens types.
"""

import math
from collections.abc import Sequence

import numpy as np

from coreml_prune_bench.runtimes.portable.batch import only, spares_leading
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation


def _scale_and_shift(call: Call, shape: Sequence[int]) -> list[str]:
    """gamma and beta, of the given shape where they are not given."""
    gamma = call.tensor("gamma") if call.has("gamma") else call.initializer("gamma", np.ones(shape, np.float32))
    beta = call.tensor("beta") if call.has("beta") else call.initializer("beta", np.zeros(shape, np.float32))
    return [gamma, beta]


@operation("batch_norm", batch=only("x", rank=3))
def batch_norm(call: Call) -> None:
    statistics = [call.tensor("mean"), call.tensor("variance")]  # [C]
    inputs = [call.tensor("x"), *_scale_and_shift(call, call.fixed_shape("mean")), *statistics]
    call.node("BatchNormalization", inputs, epsilon=call.real("epsilon", 1e-5))


@operation("instance_norm", batch=only("x", rank=3))
def instance_norm(call: Call) -> None:
    channels = call.shape("x")[1]
    if channels is None:
        raise call.unsupported("the number of channels is not fixed")
    inputs = [call.tensor("x"), *_scale_and_shift(call, [channels])]
    call.node("InstanceNormalization", inputs, epsilon=call.real("epsilon", 1e-5))


@operation("l2_norm", batch=only("x", rank=4))
def l2_norm(call: Call) -> None:
    """Over the last three dimensions, whatever the rank."""
    x = call.tensor("x")
    squares = call.node("ReduceSumSquare", [x, call.sizes("axes", [-3, -2, -1])], part="squares", keepdims=1)
    shifted = call.node("Add", [squares, call.number("epsilon", call.real("epsilon", 1e-6))], part="shifted")
    call.node("Div", [x, call.node("Sqrt", [shifted], part="norm")])


@operation("layer_norm", batch=spares_leading("axes", default=[0]))  # without axes, all of them
def layer_norm(call: Call) -> None:
    """ONNX normalizes the last dimensions only; others are moved there and back."""
    shape = call.shape("x")
    rank = len(shape)
    axes = sorted(axis % rank for axis in call.ints("axes", range(rank)))
    sizes = [shape[axis] for axis in axes]
    if None in sizes:
        raise call.unsupported("the sizes to normalize are not fixed")
    others = [axis for axis in range(rank) if axis not in axes]
    scale = _scale_and_shift(call, [size or 0 for size in sizes])
    epsilon = call.real("epsilon", 1e-5)
    if axes == list(range(len(others), rank)):
        call.node("LayerNormalization", [call.tensor("x"), *scale], axis=len(others), epsilon=epsilon)
        return
    perm = [*others, *axes]
    moved = call.node("Transpose", [call.tensor("x")], part="moved", perm=perm)
    normal = call.node("LayerNormalization", [moved, *scale], part="normal", axis=len(others), epsilon=epsilon)
    call.node("Transpose", [normal], perm=[perm.index(axis) for axis in range(rank)])


@operation("local_response_norm", batch=only("x", rank=3))
def local_response_norm(call: Call) -> None:
    """Over `size` neighbouring channels, of which an even number has one more before than after."""
    size = call.integer("size", 0)
    alpha, beta, k = call.real("alpha", 1e-4), call.real("beta", 0.75), call.real("k", 1.0)
    if size % 2 == 1 and call.rank("x") == 4:  # ONNX Runtime computes no other
        call.node("LRN", [call.tensor("x")], size=size, alpha=alpha, beta=beta, bias=k)
        return
    x = call.tensor("x")
    channels, *spatial = call.fixed_shape("x")[1:]
    squares = call.node("Mul", [x, x], part="squares")
    # [n, 1, C, all of D]: a pool over channels. 0 is ONNX's word for a size that stays.
    planes = call.node(
        "Reshape", [squares, call.sizes("planes/shape", [0, 1, channels, math.prod(spatial)])], part="planes"
    )
    mean = call.node(
        "AveragePool",
        [planes],
        part="mean",
        kernel_shape=[size, 1],
        pads=[size // 2, 0, (size - 1) // 2, 0],
        count_include_pad=1,
    )
    same = call.node("Reshape", [mean, call.sizes("shape", [0, channels, *spatial])], part="mean/same")
    scaled = call.node("Mul", [same, call.number("alpha", alpha)], part="scaled")
    sum_ = call.node("Add", [scaled, call.number("k", k)], part="sum")
    call.node("Div", [x, call.node("Pow", [sum_, call.number("beta", beta)], part="divisor")])
