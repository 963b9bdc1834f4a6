"""Pooling. Definition: coremltools/converters/mil/mil/ops/defs/iOS15/pool.py.

ONNX's own `ceil_mode` is not used: runtimes disagree on its last window. The output size becomes padding instead.
"""

import numpy as np

from harness.runtimes.portable.batch import only
from harness.runtimes.portable.graph import Call
from harness.runtimes.portable.padding import explicit_pads, pads_in_ceil_mode
from harness.runtimes.portable.registry import operation


def _window(call: Call) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Kernel, strides, padding before, padding after, and padding after that `ceil_mode` stretches to."""
    kernel = call.ints("kernel_sizes", [])
    strides = call.ints("strides", [1] * len(kernel))
    before, after = explicit_pads(call, kernel, strides, [1] * len(kernel))
    stretched = pads_in_ceil_mode(call, kernel, strides, before, after) if call.flag("ceil_mode") else after
    return kernel, strides, before, after, stretched


@operation("max_pool", batch=only("x", rank=3))
def max_pool(call: Call) -> None:
    kernel, strides, before, _, stretched = _window(call)
    call.node("MaxPool", [call.tensor("x")], kernel_shape=kernel, strides=strides, pads=[*before, *stretched])


@operation("avg_pool", batch=only("x", rank=3))
def avg_pool(call: Call) -> None:
    kernel, strides, before, after, stretched = _window(call)
    x = call.tensor("x")
    exclude = call.flag("exclude_padding_from_average")
    if not exclude and stretched != after:
        # Padding counts as zeros, what ceil_mode adds after it does not count: PyTorch's divisor.
        pads = np.array([0, 0, *before, 0, 0, *after], np.int64)
        x = call.node("Pad", [x, call.initializer("pads", pads)], part="padded")
        stretched = [end - last for end, last in zip(stretched, after, strict=True)]
        before = [0] * len(kernel)
        exclude = True
    call.node(
        "AveragePool",
        [x],
        kernel_shape=kernel,
        strides=strides,
        pads=[*before, *stretched],
        count_include_pad=0 if exclude else 1,
    )
