"""MIL's `pad_type`, worked out as the padding before and after each spatial dimension.

Definition: `aggregated_pad` and `spatial_dimensions_out_shape` in coremltools/converters/mil/mil/ops/defs/_utils.py.
"""

from coreml_prune_bench.runtimes.portable.graph import Call


def explicit_pads(
    call: Call, kernel: list[int], strides: list[int], dilations: list[int]
) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial dimension of x. `pad` counts for pad_type custom only."""
    pad_type = call.text("pad_type", "valid").lower()
    if pad_type == "valid":
        return [0] * len(kernel), [0] * len(kernel)
    if pad_type == "custom":
        pad = call.ints("pad", [0] * 2 * len(kernel))  # [before 0, after 0, before 1, after 1, ...]
        return pad[0::2], pad[1::2]
    if pad_type not in ("same", "same_lower"):
        raise call.malformed(f"pad_type is {pad_type!r}")
    smaller, larger = [], []
    for size, k, stride, dilation in zip(call.fixed_shape("x")[2:], kernel, strides, dilations, strict=True):
        # The output has ceil(size / stride) elements; what the last window lacks is padded.
        total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
        smaller.append(total // 2)
        larger.append(total - total // 2)
    return (smaller, larger) if pad_type == "same" else (larger, smaller)


def windows(size: int, kernel: int, stride: int, before: int, after: int, *, ceil_mode: bool) -> int:
    """How many windows a pool has along a dimension: PyTorch's number in ceil_mode, if there is padding.

    That is rounded up, without a last window that would start in the padding after the input.
    """
    if not ceil_mode:
        return (size + before + after - kernel) // stride + 1
    rounded_up = -(-(size + before + after - kernel) // stride) + 1
    beyond = (rounded_up - 1) * stride >= size + before and before + after > 0
    return rounded_up - 1 if beyond else rounded_up
