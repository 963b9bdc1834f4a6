"""Matrix products.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15/linear.py, and iOS17/linear.py (constants of another type).
"""

import numpy as np
from onnx import TensorProto

from coreml_prune_bench.runtimes.portable.batch import broadcast, only
from coreml_prune_bench.runtimes.portable.graph import FLOATS, Call
from coreml_prune_bench.runtimes.portable.registry import operation


@operation("linear", batch=only("x", rank=2))
def linear(call: Call) -> None:
    """x @ weight.T + bias, with weight [D_out, D_in]."""
    x = call.tensor("x")
    bias = [_factor(call, "bias")] if call.has("bias") else []
    if call.rank("x") == 2 and call.is_float("x"):
        call.node("Gemm", [x, _factor(call, "weight"), *bias], transB=1)
        return
    product = call.node("MatMul", [x, _transposed(call, "weight")], part="product" if bias else None)
    if bias:
        call.node("Add", [product, *bias])


def _matmul_keeps_batch(call: Call) -> bool:
    if call.batched_parameters() == ["x"] and call.rank("x") == call.rank("y") == 2:
        return not call.flag("transpose_x")  # row by row
    matrices = [call.rank("x"), call.rank("y")]
    return min(matrices) >= 2 and max(matrices) >= 3 and broadcast(call)


@operation("matmul", batch=_matmul_keeps_batch)
def matmul(call: Call) -> None:
    flags = {parameter: call.flag(f"transpose_{parameter}") for parameter in ("x", "y")}
    call.node("MatMul", [(_transposed if flag else _factor)(call, name) for name, flag in flags.items()])


def _factor(call: Call, parameter: str) -> str:
    """The argument in the result's kind of numbers, from which a constant may differ."""
    if call.is_float(parameter) == (call.output_type.dtype in FLOATS):
        return call.tensor(parameter)
    if not call.is_float(parameter):
        return call.node("Cast", [call.tensor(parameter)], part=f"{parameter}/float", to=TensorProto.FLOAT)
    factor = call.array(parameter)
    whole = factor.astype(np.int32)
    if (whole != factor).any():
        # The definition does not say whether the factors or the products are rounded.
        raise call.unsupported("it multiplies integers by fractions and declares integers")
    return call.initializer(f"{parameter}/integers", whole)


def _transposed(call: Call, parameter: str) -> str:
    """The argument with its last two dimensions exchanged. A vector has none to exchange."""
    factor, rank = _factor(call, parameter), call.rank(parameter)
    if rank < 2:
        return factor
    if factor in call.graph.arrays:
        return call.initializer(f"{parameter}_transposed", call.graph.arrays[factor].swapaxes(-1, -2))
    perm = [*range(rank - 2), rank - 1, rank - 2]
    return call.node("Transpose", [factor], part=f"{parameter}_transposed", perm=perm)


def _einsum_keeps_batch(call: Call) -> bool:
    x, _ = call.types("values")
    return broadcast(call) if len(x.shape) == 4 else call.batched("values") == [True, False]


@operation("einsum", batch=_einsum_keeps_batch)
def einsum(call: Call) -> None:
    """nchw,nwhu->nchu or chw,whu->chu: a matrix product over the last but one and the third last dimension."""
    equation = call.text("equation", "")
    x, y = call.tensors("values")
    if _spelled_alike(equation) == "abcd,adce->abce":
        perm = [0, 2, 1, 3]
    elif _spelled_alike(equation) == "abc,cbd->abd":
        perm = [1, 0, 2]
    else:
        raise call.malformed(f"its equation is {equation!r}")
    matrices = [
        call.node("Transpose", [x], part="x/matrices", perm=perm),  # [n, h, c, w]
        call.node("Transpose", [y], part="y/matrices", perm=perm),  # [n, h, w, u]
    ]
    call.node("Transpose", [call.node("MatMul", matrices, part="product")], perm=perm)


def _spelled_alike(equation: str) -> str:
    """The equation with its letters renamed to a, b, c... in the order in which they appear."""
    plain = equation.replace(" ", "")
    letters = dict.fromkeys(letter for letter in plain if letter.isalpha())
    return plain.translate({ord(letter): chr(ord("a") + position) for position, letter in enumerate(letters)})
