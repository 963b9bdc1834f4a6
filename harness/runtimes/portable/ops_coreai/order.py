"""Sorting, and running sums."""

import numpy as np
from onnx import TensorProto

from coreml_prune_bench.runtimes.portable.batch import spares_leading
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation

_OTHER_AXES = spares_leading("axis", default=[-1])


@operation("coreai.sort", batch=_OTHER_AXES)
def sort(call: Call) -> None:
    _top(call, call.output, call.part("indices"))


@operation("coreai.argsort", batch=_OTHER_AXES)
def argsort(call: Call) -> None:
    _top(call, call.part("values"), call.part("indices"))
    call.node("Cast", [call.part("indices")], to=TensorProto.INT32)


def _top(call: Call, values: str, indices: str) -> None:
    """All elements, in order. Of equal ones ONNX Runtime gives the first first, as a stable sort does."""
    axis = call.integer("axis", -1) % call.rank("x")
    count = call.fixed_shape("x")[axis]
    largest = int(call.flag("descending"))
    call.nodes("TopK", [call.tensor("x"), call.sizes("count", [count])], [values, indices], axis=axis, largest=largest)


@operation("coreai.scan", batch=_OTHER_AXES)
def scan(call: Call) -> None:
    kind = call.text("scan_op", "sum")
    if kind != "sum":
        raise call.unsupported(f"it runs along an axis with {kind}")
    axis = call.initializer("axis", np.array(call.integer("axis", 0), np.int64))
    call.node("CumSum", [call.tensor("x"), axis], reverse=int(call.flag("reverse")))
