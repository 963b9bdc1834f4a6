"""Convolution. Definition: coremltools/converters/mil/mil/ops/defs/iOS15/conv.py."""

from harness.runtimes.portable.batch import only
from harness.runtimes.portable.graph import Call
from harness.runtimes.portable.padding import explicit_pads
from harness.runtimes.portable.registry import operation


@operation("conv", batch=only("x", rank=3))
def conv(call: Call) -> None:
    spatial = len(call.shape("x")) - 2
    kernel = [size or 0 for size in call.shape("weight")[2:]]  # weight is [C_out, C_in / groups, *kernel]
    strides = call.ints("strides", [1] * spatial)
    dilations = call.ints("dilations", [1] * spatial)
    before, after = explicit_pads(call, kernel, strides, dilations)
    inputs = [call.tensor("x"), call.tensor("weight")]
    if call.has("bias"):
        inputs.append(call.tensor("bias"))
    call.node(
        "Conv",
        inputs,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=[*before, *after],
        group=call.integer("groups", 1),
    )
