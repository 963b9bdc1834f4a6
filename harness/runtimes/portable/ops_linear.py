"""Matrix products. Definition: coremltools/converters/mil/mil/ops/defs/iOS15/linear.py."""

from harness.runtimes.portable.batch import broadcast, only
from harness.runtimes.portable.graph import Call
from harness.runtimes.portable.registry import operation


@operation("linear", batch=only("x", rank=2))
def linear(call: Call) -> None:
    """x @ weight.T + bias, with weight [D_out, D_in]."""
    x = call.tensor("x")
    bias = [call.tensor("bias")] if call.has("bias") else []
    if len(call.shape("x")) == 2 and call.is_float("x"):
        call.node("Gemm", [x, call.tensor("weight"), *bias], transB=1)
        return
    weight = call.initializer("weight", call.array("weight").T)  # [D_in, D_out]
    product = call.node("MatMul", [x, weight], part="product" if bias else None)
    if bias:
        call.node("Add", [product, *bias])


def _matmul_keeps_batch(call: Call) -> bool:
    if call.batched_parameters() == ["x"] and len(call.shape("x")) == len(call.shape("y")) == 2:
        return not call.flag("transpose_x")  # row by row
    matrices = [len(call.shape("x")), len(call.shape("y"))]
    return min(matrices) >= 2 and max(matrices) >= 3 and broadcast(call)


@operation("matmul", batch=_matmul_keeps_batch)
def matmul(call: Call) -> None:
    call.node("MatMul", [_operand(call, "x"), _operand(call, "y")])


def _operand(call: Call, parameter: str) -> str:
    """The argument, with its last two dimensions exchanged if asked. A vector has none to exchange."""
    name, rank = call.tensor(parameter), len(call.shape(parameter))
    if not call.flag(f"transpose_{parameter}") or rank < 2:
        return name
    perm = [*range(rank - 2), rank - 1, rank - 2]
    return call.node("Transpose", [name], part=f"{parameter}_transposed", perm=perm)
