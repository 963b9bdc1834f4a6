"""Reductions. Definition: coremltools/converters/mil/mil/ops/defs/iOS15/reduction.py (iOS17: types of indices)."""

from onnx import TensorProto

from coreml_prune_bench.runtimes.portable.batch import spares_leading
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation

_REDUCTIONS = {
    "reduce_l1_norm": "ReduceL1",
    "reduce_l2_norm": "ReduceL2",
    "reduce_log_sum": "ReduceLogSum",
    "reduce_log_sum_exp": "ReduceLogSumExp",
    "reduce_max": "ReduceMax",
    "reduce_mean": "ReduceMean",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
    "reduce_sum_square": "ReduceSumSquare",
}


_FRACTIONAL = ("reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp", "reduce_mean")
"""Of integers, these are computed as numbers with a fraction, which is cut off at the end."""


@operation(*_REDUCTIONS, batch=spares_leading("axes", default=[0]))  # without axes, all of them
def reduce(call: Call) -> None:
    rank = call.rank("x")
    axes = [axis % rank for axis in call.ints("axes", range(rank))]
    keep = call.flag("keep_dims")
    spatial = rank > 2 and sorted(axes) == list(range(2, rank))
    if call.operation.type == "reduce_mean" and keep and spatial and call.is_float("x"):
        # ONNX Runtime computes this one in its blocked layout, without a way back to NCHW and there again.
        call.node("GlobalAveragePool", [call.tensor("x")])
        return
    op_type, x = _REDUCTIONS[call.operation.type], call.tensor("x")
    if not axes:
        # Each element by itself: in ONNX, no axes are all axes.
        x = call.node("Unsqueeze", [x, call.sizes("last", [rank])], part="elements")
        axes, keep = [rank], False
    if call.is_float("x") or call.operation.type not in _FRACTIONAL:
        call.node(op_type, [x, call.sizes("axes", axes)], keepdims=int(keep))
        return
    wide = call.node("Cast", [x], part="wide", to=TensorProto.DOUBLE)
    reduced = call.node(op_type, [wide, call.sizes("axes", axes)], part="reduced", keepdims=int(keep))
    call.node("Cast", [reduced], to=TensorProto.INT32)


@operation("reduce_argmax", "reduce_argmin", batch=spares_leading("axis", default=[-1]))
def reduce_arg(call: Call) -> None:
    op_type = "ArgMax" if call.operation.type == "reduce_argmax" else "ArgMin"
    keep = int(call.flag("keep_dims"))
    index = call.node(op_type, [call.tensor("x")], part="int64", axis=call.integer("axis", -1), keepdims=keep)
    call.node("Cast", [index], to=TensorProto.INT32)
