"""The operands of Core AI's operations, by name: the file has them by position.

Definitions: the docstrings of `coreai._compiler.dialects._coreai_ops_gen` in coreai-core 1.0.0b3.
"""

from collections.abc import Sequence

_UNARY = (
    "abs acos acosh asin asinh atan atanh cos cosh erf exp log not round rsqrt sin sinh sqrt tan tanh relu sigmoid "
    "silu gelu cast real_part imaginary_part get_shape non_zero"
)
_BINARY = (
    "add sub mul divide floor_divide modulo pow maximum minimum equal not_equal greater and or xor bitwise_and "
    "bitwise_or bitwise_xor batch_matmul create_complex"
)
_REDUCTIONS = "all any reduce_max reduce_mean reduce_min reduce_product reduce_sum"

OPERANDS: dict[str, str] = {
    **dict.fromkeys(_UNARY.split(), "x"),
    **dict.fromkeys(_BINARY.split(), "x y"),
    **dict.fromkeys(_REDUCTIONS.split(), "x axes"),
    "argmax": "x axis",
    "argsort": "x axis descending stable",
    "blockwise_shift_scale": "x scale offset1 offset2",
    "broadcast_in_dims": "x sizes axes",
    "broadcast_shapes": "x y",
    "broadcast_to": "x shape",
    "build_sparse_with_bitmask": "values bitmask",
    "concat": "axis *values",
    "conv2d": "x weight strides dilations groups",
    "conv3d": "x weight strides dilations groups",
    "conv_transpose2d": "x weight strides padding dilations output_padding groups",
    "conv_transpose3d": "x weight strides padding dilations output_padding groups",
    "dequantize": "x scale offset1 offset2 axis",
    "expand_dims": "x axes",
    "gather_along_axis": "x indices axis",
    "gather_nd": "x indices",
    "if": "condition",
    "interpolate": "x output_shape scale offset",
    "interpolate_coordinates": "x coordinates",
    "lut_to_dense": "indices lut axis",
    "lut_to_sparse_with_bitmask": "indices lut axis",
    "max_pool_2d": "x kernel_size strides dilations ceil_mode",
    "max_pool_3d": "x kernel_size strides dilations ceil_mode",
    "pad": "x padding value",
    "quantize": "x scale offset1 offset2 axis",
    "range": "start stop step",
    "reduce": "x axes initial",
    "reduce_index": "x axis initial initial_index",
    "reshape": "x shape",
    "reverse": "x axes",
    "scan": "x axis reverse",
    "scatter_along_axis": "x indices updates axis",
    "scatter_nd": "x indices updates",
    "shrink_dims": "x axes",
    "slice": "x begin end strides",
    "slice_update": "x begin end strides update",
    "softmax": "x axis",
    "sort": "x axis descending stable",
    "sparse_with_bitmask_to_dense": "x",
    "split": "x sizes axis",
    "sum_pool_2d": "x kernel_size strides dilations",
    "sum_pool_3d": "x kernel_size strides dilations",
    "tile": "x repetitions",
    "transpose": "x permutation",
    "where": "condition a b",
    "while": "*values",
}

_PREFIXES = ("coreai.decomposable.broadcasting_", "coreai.")


def short_name(operation: str) -> str:
    """`coreai.decomposable.broadcasting_add` is `add`: both broadcast as NumPy does, one of them has nothing to."""
    prefix = next((prefix for prefix in _PREFIXES if operation.startswith(prefix)), "")
    return operation.removeprefix(prefix)


def operands(name: str, values: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The values by parameter, of the operation with that short name; by number where it is not known."""
    if name not in OPERANDS:
        return {str(position): (value,) for position, value in enumerate(values)}
    named = OPERANDS[name].split()
    if named and named[-1].startswith("*"):
        rest = len(named) - 1
        return {**{n: (v,) for n, v in zip(named[:rest], values, strict=False)}, named[-1][1:]: tuple(values[rest:])}
    if len(named) != len(values):
        raise ValueError(f"operation {name!r} has {len(values)} operands, expected {len(named)}")
    return {parameter: (value,) for parameter, value in zip(named, values, strict=True)}
