"""Operations that mean what one of an ML program means, with its arguments in the places that that one has for them."""

import numpy as np

from coreml_prune_bench.mlprogram.values import Immediate, TensorType
from coreml_prune_bench.runtimes.portable import ops  # noqa: F401  (registers what these are told as)
from coreml_prune_bench.runtimes.portable.registry import told_as


def _flag(value: bool) -> Immediate:
    return Immediate(TensorType("bool", ()), np.array(value))


def _number(value: float) -> Immediate:
    return Immediate(TensorType("fp32", ()), np.array(value, np.float32))


def _text(value: str) -> Immediate:
    return Immediate(TensorType("string", ()), value)


_SAME_NAME = (
    *("abs", "acos", "add", "asin", "atan", "atanh", "cast", "concat", "cos", "cosh", "equal", "erf", "exp"),
    *("expand_dims", "gather_along_axis", "gather_nd", "greater", "maximum", "minimum", "mul", "non_zero", "not_equal"),
    *("pow", "relu", "reshape", "reverse", "round", "sigmoid", "silu", "sin", "sinh", "softmax", "sqrt", "sub"),
    *("tan", "tanh"),
)
for _name in _SAME_NAME:
    told_as(f"coreai.{_name}", _name)

for _name, _told in {
    "and": "logical_and",
    "batch_matmul": "matmul",
    "conv2d": "conv",
    "conv3d": "conv",
    "divide": "real_div",
    "floor_divide": "floor_div",
    "not": "logical_not",
    "or": "logical_or",
    "get_shape": "shape",
    "shrink_dims": "squeeze",
    "xor": "logical_xor",
}.items():
    told_as(f"coreai.{_name}", _told)

for _name in ("max", "mean", "min", "sum"):
    told_as(f"coreai.reduce_{_name}", f"reduce_{_name}", given={"keep_dims": _flag(True)})
told_as("coreai.reduce_product", "reduce_prod", given={"keep_dims": _flag(True)})
told_as("coreai.argmax", "reduce_argmax", given={"keep_dims": _flag(True)})

told_as("coreai.if", "cond", renamed={"condition": "pred"})
told_as("coreai.log", "log", given={"epsilon": _number(0)})
told_as("coreai.range", "range_1d", renamed={"stop": "end"})
told_as("coreai.rsqrt", "rsqrt", given={"epsilon": _number(0)})
told_as("coreai.scatter_nd", "scatter_nd", renamed={"x": "data"}, given={"mode": _text("update")})
told_as("coreai.tile", "tile", renamed={"repetitions": "reps"})
told_as("coreai.transpose", "transpose", renamed={"permutation": "perm"})
told_as("coreai.where", "select", renamed={"condition": "cond"})
told_as(
    "coreai.scatter_along_axis",
    "scatter_along_axis",
    renamed={"x": "data", "scatter_mode": "mode"},
    given={"mode": _text("update")},
)
