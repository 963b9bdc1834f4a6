"""Convolutions and pools. Padding is no part of them: a `coreai.pad` comes before."""

import itertools
import math

from coreml_prune_bench.runtimes.portable.batch import only
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation


@operation("coreai.conv_transpose2d", "coreai.conv_transpose3d", batch=only("x", rank=3))
def conv_transpose(call: Call) -> None:
    kernel = call.fixed_shape("weight")[2:]  # weight is [C_in, C_out / groups, *kernel]
    padding = call.ints("padding", [])
    # One for both ends of a dimension, or before and after each.
    before, after = (padding[0::2], padding[1::2]) if len(padding) == 2 * len(kernel) else (padding, padding)
    call.node(
        "ConvTranspose",
        [call.tensor("x"), call.tensor("weight")],
        kernel_shape=kernel,
        strides=call.ints("strides", []),
        dilations=call.ints("dilations", []),
        pads=[*before, *after],
        output_padding=call.ints("output_padding", []),
        group=call.integer("groups", 1),
    )


@operation("coreai.max_pool_2d", "coreai.max_pool_3d", batch=only("x", rank=3))
def max_pool(call: Call) -> None:
    kernel, strides, dilations = (call.ints(name, []) for name in ("kernel_size", "strides", "dilations"))
    call.node(
        "MaxPool",
        [call.tensor("x")],
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=[0] * len(kernel) + _beyond(call, kernel, strides, dilations),
    )


@operation("coreai.sum_pool_2d", "coreai.sum_pool_3d", batch=only("x", rank=3))
def sum_pool(call: Call) -> None:
    """An average, times the number of elements in a window; of integers, one element of all windows after the other."""
    kernel, strides, dilations = (call.ints(name, []) for name in ("kernel_size", "strides", "dilations"))
    if call.is_float("x"):
        mean = call.node(
            "AveragePool",
            [call.tensor("x")],
            part="mean",
            kernel_shape=kernel,
            strides=strides,
            dilations=dilations,
        )
        call.node("Mul", [mean, call.number("elements", math.prod(kernel))])
        return
    shape = call.fixed_shape("x")[2:]
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(shape, kernel, strides, dilations, strict=True)]
    axes, steps = call.sizes("axes", range(2, 2 + len(kernel))), call.sizes("steps", strides)
    total = ""
    for number, place in enumerate(itertools.product(*map(range, kernel))):
        first = [position * dilation for position, dilation in zip(place, dilations, strict=True)]
        end = [start + (count - 1) * step + 1 for start, count, step in zip(first, counts, strides, strict=True)]
        bounds = [call.sizes(f"start{number}", first), call.sizes(f"end{number}", end)]
        element = call.node("Slice", [call.tensor("x"), *bounds, axes, steps], part=f"element{number}")
        total = call.node("Add", [total, element], part=f"sum{number}") if total else element
    call.node("Identity", [total])


def _beyond(call: Call, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    """What the last window of `ceil_mode` lacks after each dimension."""
    if not call.flag("ceil_mode"):
        return [0] * len(kernel)
    lacking = []
    for size, k, stride, dilation in zip(call.fixed_shape("x")[2:], kernel, strides, dilations, strict=True):
        width = dilation * (k - 1) + 1
        last = -(-(size - width) // stride) * stride
        lacking.append(max(0, last + width - size))
    return lacking
