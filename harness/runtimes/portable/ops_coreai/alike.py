"""Operations that mean what one of an ML program means, with its arguments in the places that that one has for them."""

import numpy as np

from coreml_prune_bench.mlprogram.values import Immediate, TensorType
from coreml_prune_bench.runtimes.portable import ops  # noqa: F401  (registers what these are told as)
from coreml_prune_bench.runtimes.portable.ops_coreai.apart import along_apart, broadcasts_apart
from coreml_prune_bench.runtimes.portable.ops_coreai.picks import picks_apart, picks_rows
from coreml_prune_bench.runtimes.portable.registry import told_as


def _flag(value: bool) -> Immediate:
    return Immediate(TensorType("bool", ()), np.array(value))


def _number(value: float) -> Immediate:
    return Immediate(TensorType("fp32", ()), np.array(value, np.float32))


def _text(value: str) -> Immediate:
    return Immediate(TensorType("string", ()), value)


_SAME_NAME = (
    *("abs", "acos", "asin", "atan", "atanh", "cast", "concat", "cos", "cosh", "erf", "exp", "expand_dims", "non_zero"),
    *("relu", "reshape", "reverse", "round", "sigmoid", "silu", "sin", "sinh", "sqrt", "tan", "tanh"),
)
for _name in _SAME_NAME:
    told_as(f"coreai.{_name}", _name)

for _name, _told in {
    "conv2d": "conv",
    "conv3d": "conv",
    "not": "logical_not",
    "get_shape": "shape",
    "shrink_dims": "squeeze",
}.items():
    told_as(f"coreai.{_name}", _told)

_BROADCASTING = {
    **{name: name for name in ("add", "equal", "greater", "maximum", "minimum", "mul", "not_equal", "pow", "sub")},
    "and": "logical_and",
    "divide": "real_div",
    "floor_divide": "floor_div",
    "or": "logical_or",
    "xor": "logical_xor",
}
for _name, _told in _BROADCASTING.items():
    told_as(f"coreai.{_name}", _told, wrap=broadcasts_apart)
told_as("coreai.batch_matmul", "matmul", wrap=lambda entry: broadcasts_apart(entry, least_rank=2))
told_as("coreai.where", "select", renamed={"condition": "cond"}, wrap=broadcasts_apart)

_COUNTS_FROM_END = "CoreML6"
"""The last operation set of ML programs in which a negative index counts from the end, as Core AI's do."""
told_as("coreai.gather_along_axis", "gather_along_axis", opset=_COUNTS_FROM_END, wrap=picks_rows)
told_as("coreai.gather_nd", "gather_nd", opset=_COUNTS_FROM_END, wrap=picks_apart)

_KEPT = {"keep_dims": _flag(True)}
for _name, _told in {"max": "max", "mean": "mean", "min": "min", "product": "prod", "sum": "sum"}.items():
    told_as(f"coreai.reduce_{_name}", f"reduce_{_told}", given=_KEPT, wrap=lambda entry: along_apart(entry, "axes"))
told_as("coreai.argmax", "reduce_argmax", given=_KEPT, wrap=lambda entry: along_apart(entry, "axis"))
told_as("coreai.softmax", "softmax", wrap=lambda entry: along_apart(entry, "axis"))

told_as("coreai.if", "cond", renamed={"condition": "pred"})
told_as("coreai.log", "log", given={"epsilon": _number(0)})
told_as("coreai.range", "range_1d", renamed={"stop": "end"})
told_as("coreai.rsqrt", "rsqrt", given={"epsilon": _number(0)})
told_as(
    "coreai.scatter_nd", "scatter_nd", renamed={"x": "data"}, given={"mode": _text("update")}, opset=_COUNTS_FROM_END
)
told_as("coreai.tile", "tile", renamed={"repetitions": "reps"})
told_as("coreai.transpose", "transpose", renamed={"permutation": "perm"})
told_as(
    "coreai.scatter_along_axis",
    "scatter_along_axis",
    renamed={"x": "data", "scatter_mode": "mode"},
    given={"mode": _text("update")},
    opset=_COUNTS_FROM_END,
)
