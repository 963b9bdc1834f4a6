"""Reductions. Definition: coremltools/converters/mil/mil/ops/defs/iOS15/reduction.py."""

import numpy as np
import onnx

from harness.runtimes.portable.batch import spares_leading
from harness.runtimes.portable.graph import Call
from harness.runtimes.portable.registry import operation

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


@operation(*_REDUCTIONS, batch=spares_leading("axes", default=[0]))  # without axes, all of them
def reduce(call: Call) -> None:
    rank = len(call.shape("x"))
    axes = [axis % rank for axis in call.ints("axes", range(rank))]
    keep = call.flag("keep_dims")
    spatial = rank > 2 and sorted(axes) == list(range(2, rank))
    if call.operation.type == "reduce_mean" and keep and spatial and call.is_float("x"):
        # ONNX Runtime computes this one in its blocked layout, without a way back to NCHW and there again.
        call.node("GlobalAveragePool", [call.tensor("x")])
        return
    inputs = [call.tensor("x"), call.initializer("axes", np.array(axes, np.int64))]
    call.node(_REDUCTIONS[call.operation.type], inputs, keepdims=int(keep))


@operation("reduce_argmax", "reduce_argmin", batch=spares_leading("axis", default=[-1]))
def reduce_arg(call: Call) -> None:
    op_type = "ArgMax" if call.operation.type == "reduce_argmax" else "ArgMin"
    keep = int(call.flag("keep_dims"))
    index = call.node(op_type, [call.tensor("x")], part="int64", axis=call.integer("axis", -1), keepdims=keep)
    call.node("Cast", [index], to=onnx.TensorProto.INT32)
