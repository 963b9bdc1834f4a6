"""Convolution.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15/conv.py, and iOS17/conv.py (weights and biases that are
computed).
"""

import numpy as np

from coreml_prune_bench.runtimes.portable.batch import only
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.padding import explicit_pads
from coreml_prune_bench.runtimes.portable.registry import operation


@operation("conv", batch=only("x", rank=3))
def conv(call: Call) -> None:
    _convolve(call, call.tensor("weight"))


def _convolve(call: Call, weight: str) -> None:
    kernel = call.fixed_shape("weight")[2:]  # weight is [C_out, C_in / groups, *kernel]
    strides = call.ints("strides", [1] * len(kernel))
    dilations = call.ints("dilations", [1] * len(kernel))
    before, after = explicit_pads(call, kernel, strides, dilations)
    inputs = [call.tensor("x"), weight]
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


@operation("conv_quantized", batch=only("x", rank=3))
def conv_quantized(call: Call) -> None:
    """The weights are weight * quant_scale + quant_bias, a scale and a bias for each output channel or for all."""
    kind, bits = call.text("quantization_type", ""), call.integer("nbits", 8)
    if kind != "linear" or bits != 8:
        raise call.unsupported(f"its weights have quantization_type {kind!r} and {bits} bits")
    weight = call.array("weight").astype(np.float32)
    per_channel = (-1, *[1] * (weight.ndim - 1))
    scale, bias = (call.array(f"quant_{name}").reshape(per_channel) for name in ("scale", "bias"))
    _convolve(call, call.initializer("weight", weight * scale + bias))


@operation("conv_transpose", batch=only("x", rank=3))
def conv_transpose(call: Call) -> None:
    kernel = call.fixed_shape("weight")[2:]  # weight is [C_in, C_out / groups, *kernel]
    strides = call.ints("strides", [1] * len(kernel))
    dilations = call.ints("dilations", [1] * len(kernel))
    before, after = _crop(call, kernel, strides, dilations)
    extra = [max(0, -end) for end in after]
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise call.unsupported("its output_shape is larger than any input of the convolution that it transposes")
    inputs = [call.tensor("x"), call.tensor("weight")]
    if call.has("bias"):
        inputs.append(call.tensor("bias"))
    call.node(
        "ConvTranspose",
        inputs,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=[*before, *(max(0, end) for end in after)],
        output_padding=extra,
        group=call.integer("groups", 1),
    )


def _crop(call: Call, kernel: list[int], strides: list[int], dilations: list[int]) -> tuple[list[int], list[int]]:
    """What to cut off before and after each spatial dimension; less than nothing after it is to be added there.

    As in TensorFlow: it undoes the shape of a convolution whose last window may not have reached the end.
    """
    pad_type = call.text("pad_type", "valid").lower()
    if pad_type not in ("valid", "same", "custom"):
        raise call.malformed(f"pad_type is {pad_type!r}")
    pad = call.ints("pad", [0] * 2 * len(kernel)) if pad_type == "custom" else [0] * 2 * len(kernel)
    before, after = [], []
    for axis, (k, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        width = (k - 1) * dilation + 1
        if call.has("output_shape"):
            total = (call.fixed_shape("x")[2 + axis] - 1) * stride + width - call.ints("output_shape", [])[2 + axis]
        else:
            total = width - stride if pad_type == "same" else pad[2 * axis] + pad[2 * axis + 1]
        before.append(max(0, total) // 2 if pad_type == "same" else pad[2 * axis])
        after.append(total - before[-1])
    return before, after
