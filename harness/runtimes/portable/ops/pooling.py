"""Pooling. Definition: coremltools/converters/mil/mil/ops/defs/iOS15/pool.py.

ONNX's own `ceil_mode` is not used: runtimes disagree on its last window. The number of windows becomes padding instead.
"""

from dataclasses import dataclass

from coreml_prune_bench.runtimes.portable.batch import only
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.padding import explicit_pads, windows
from coreml_prune_bench.runtimes.portable.registry import operation


@dataclass(frozen=True)
class _Windows:
    """Per spatial dimension. `after` is the padding that windows reach; `beyond` is where `ceil_mode` makes them end.

    ONNX Runtime has no padding as large as the kernel.
    """

    kernel: list[int]
    strides: list[int]
    before: list[int]
    after: list[int]
    beyond: list[int]

    @property
    def some_miss_the_input(self) -> bool:
        ends = zip(self.kernel, self.before, self.after, self.beyond, strict=True)
        return any(before >= k or after + beyond >= k for k, before, after, beyond in ends)

    @property
    def pads(self) -> list[int]:
        return [*self.before, *(after + beyond for after, beyond in zip(self.after, self.beyond, strict=True))]


def _windows(call: Call) -> _Windows:
    kernel = call.ints("kernel_sizes", [])
    strides = call.ints("strides", [1] * len(kernel))
    before, padded = explicit_pads(call, kernel, strides, [1] * len(kernel))
    ceil_mode = call.flag("ceil_mode")
    after, beyond = [], []
    for size, k, stride, first, last in zip(call.shape("x")[2:], kernel, strides, before, padded, strict=True):
        if size is None and ceil_mode:
            raise call.unsupported("ceil_mode is set and the input's size is not fixed")
        if size is None:
            reached = last
        else:
            count = windows(size, k, stride, first, last, ceil_mode=ceil_mode)
            reached = max(0, (count - 1) * stride + k - size - first)
        after.append(min(reached, last))
        beyond.append(max(0, reached - last))
    return _Windows(kernel, strides, before, after, beyond)


def _padded_with_zeros(call: Call, before: list[int], after: list[int]) -> str:
    pads = call.sizes("pads", [0, 0, *before, 0, 0, *after])
    return call.node("Pad", [call.tensor("x"), pads], part="padded")


@operation("max_pool", batch=only("x", rank=3))
def max_pool(call: Call) -> None:
    pool = _windows(call)
    if pool.some_miss_the_input:
        raise call.unsupported("a window lies outside the input")
    call.node("MaxPool", [call.tensor("x")], kernel_shape=pool.kernel, strides=pool.strides, pads=pool.pads)


@operation("avg_pool", batch=only("x", rank=3))
def avg_pool(call: Call) -> None:
    pool = _windows(call)
    padding_counts = (any(pool.before) or any(pool.after)) and not call.flag("exclude_padding_from_average")
    if pool.some_miss_the_input and (any(pool.beyond) or not padding_counts):
        raise call.unsupported("a window lies outside the input")
    x, pads = call.tensor("x"), pool.pads
    if padding_counts and (any(pool.beyond) or pool.some_miss_the_input):
        # Padding counts as zeros, what ceil_mode adds after it does not count: PyTorch's divisor.
        x, pads = _padded_with_zeros(call, pool.before, pool.after), [*[0] * len(pool.before), *pool.beyond]
        padding_counts = False
    call.node(
        "AveragePool",
        [x],
        kernel_shape=pool.kernel,
        strides=pool.strides,
        pads=pads,
        count_include_pad=int(padding_counts),
    )


@operation("l2_pool", batch=only("x", rank=3))
def l2_pool(call: Call) -> None:
    """The square root of the sum of squares, to which padding adds nothing."""
    pool = _windows(call)
    x, pads = call.tensor("x"), pool.pads
    if pool.some_miss_the_input:
        x, pads = _padded_with_zeros(call, pool.before, pads[len(pool.before) :]), [0] * len(pads)
    call.node("LpPool", [x], kernel_shape=pool.kernel, strides=pool.strides, pads=pads, p=2)
