"""Sorting, and running sums."""

import math

import numpy as np
from onnx import TensorProto

from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.ops_coreai.apart import along


@along("axis", "coreai.sort")
def sort(call: Call) -> None:
    _top(call, call.output, call.part("indices"))


@along("axis", "coreai.argsort")
def argsort(call: Call) -> None:
    _top(call, call.part("values"), call.part("indices"))
    call.node("Cast", [call.part("indices")], to=TensorProto.INT32)


def _top(call: Call, values: str, indices: str) -> None:
    """All elements, in order. Of equal ones ONNX Runtime gives the first first, as a stable sort does."""
    axis = call.integer("axis", -1) % call.rank("x")
    count = call.fixed_shape("x")[axis]
    largest = int(call.flag("descending"))
    call.nodes("TopK", [call.tensor("x"), call.sizes("count", [count])], [values, indices], axis=axis, largest=largest)


_COMBINERS = ("Sum", "Mul", "Min", "Max")
"""What `scan_op` says by its number: how ONNX puts two elements together."""
_NEUTRAL = {"Mul": 1.0, "Min": math.inf, "Max": -math.inf}
"""What changes no element."""


@along("axis", "coreai.scan")
def scan(call: Call) -> None:
    axis = call.integer("axis", 0) % call.rank("x")
    number = call.integer("scan_op", 0)
    if not 0 <= number < len(_COMBINERS):
        raise call.malformed(f"scan_op is {number}")
    op_type = _COMBINERS[number]
    if op_type == "Sum":
        position = call.initializer("axis", np.array(axis, np.int64))
        call.node("CumSum", [call.tensor("x"), position], reverse=int(call.flag("reverse")))
    else:
        _scan_by_doubling(call, axis, op_type, _NEUTRAL[op_type])


def _scan_by_doubling(call: Call, axis: int, op_type: str, neutral: float) -> None:
    """Each element with the one before it, then with the two before those, then four: ONNX has a running sum alone."""
    size, x = call.fixed_shape("x")[axis], call.tensor("x")
    if not call.is_float("x"):
        limits = np.iinfo(np.int32)
        neutral = min(max(neutral, limits.min), limits.max)
    dtype = np.float32 if call.is_float("x") else np.int32
    filling, axes = call.initializer("neutral", np.array(neutral, dtype)), call.sizes("axes", [axis])
    for step in (1 << power for power in range((size - 1).bit_length())):
        kept, pads = ([step], [size]), [0, step]
        if not call.flag("reverse"):
            kept, pads = ([0], [size - step]), [step, 0]
        bounds = [call.sizes(f"{step}/{part}", value) for part, value in zip(("start", "end"), kept, strict=True)]
        part = call.node("Slice", [x, *bounds, axes], part=f"{step}/part")
        moved = call.node("Pad", [part, call.sizes(f"{step}/pads", pads), filling, axes], part=f"{step}/moved")
        x = call.node(op_type, [x, moved], part=f"{step}/joined")
    call.node("Identity", [x])
