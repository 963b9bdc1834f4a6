"""MIL's `pad_type`, worked out as the padding before and after each spatial dimension.

Definition: `aggregated_pad` and `spatial_dimensions_out_shape` in coremltools/converters/mil/mil/ops/defs/_utils.py.
"""

from harness.runtimes.portable.graph import Call


def explicit_pads(
    call: Call, kernel: list[int], strides: list[int], dilations: list[int]
) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial dimension of x. `pad` counts for pad_type custom only."""
    pad_type = call.text("pad_type", "valid")
    if pad_type == "valid":
        return [0] * len(kernel), [0] * len(kernel)
    if pad_type == "custom":
        pad = call.ints("pad", [0] * 2 * len(kernel))  # [before 0, after 0, before 1, after 1, ...]
        return pad[0::2], pad[1::2]
    if pad_type not in ("same", "same_lower"):
        raise call.unsupported(f"pad_type is {pad_type!r}")
    smaller, larger = [], []
    for size, k, stride, dilation in zip(call.shape("x")[2:], kernel, strides, dilations, strict=True):
        if size is None:
            raise call.unsupported(f"pad_type is {pad_type!r} and the input's size is not fixed")
        # The output has ceil(size / stride) elements; what the last window lacks is padded.
        total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
        smaller.append(total // 2)
        larger.append(total - total // 2)
    return (smaller, larger) if pad_type == "same" else (larger, smaller)


def pads_in_ceil_mode(
    call: Call, kernel: list[int], strides: list[int], before: list[int], after: list[int]
) -> list[int]:
    """Padding after each dimension that gives `ceil_mode`'s output size where that size is rounded down.

    The size is PyTorch's: rounded up, without a last window that would start in the padding after the input.
    """
    ends = []
    for size, k, stride, first, last in zip(call.shape("x")[2:], kernel, strides, before, after, strict=True):
        if size is None:
            raise call.unsupported("ceil_mode is set and the input's size is not fixed")
        out = (size + first + last - k + stride - 1) // stride + 1
        if (out - 1) * stride >= size + first and first + last > 0:
            out -= 1
        end = max(last, (out - 1) * stride + k - size - first)
        if end >= max(k, last + 1):
            raise call.unsupported("ceil_mode asks for a window that lies outside the input")
        ends.append(end)
    return ends
