"""What stands in pipelines beside their ML programs: values that a model hands on, and non-maximum suppression.

`coreml_prune_bench.mlprogram.pipeline` writes these operations. The definition of suppression is
NonMaximumSuppression.proto of coremltools.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from coreml_prune_bench.runtimes.portable.batch import only
from coreml_prune_bench.runtimes.portable.graph import Call, onnx_type
from coreml_prune_bench.runtimes.portable.registry import operation

_LOWEST = float(np.finfo(np.float32).min)


@operation("feature", batch=only("x"))
def feature(call: Call) -> None:
    """x as the next model takes it: of the declared shape, rounded to Float16 or to the bytes of an image."""
    given, declared = call.shape("x"), call.output_type
    if declared.rank_known and declared.shape == () and given == (1,):  # Core ML has no scalar features
        call.node("Reshape", [call.tensor("x"), call.sizes("scalar", [])])
        return
    if declared.rank_known and (
        len(given) != len(declared.shape)
        or any(None not in sizes and len(set(sizes)) > 1 for sizes in zip(given, declared.shape, strict=True))
    ):
        raise call.malformed(f"a model takes {list(declared.shape)}, and the one before it gives {list(given)}")
    call.graph.types[call.output] = replace(declared, shape=given, rank_known=True)
    x = call.tensor("x")
    if call.flag("pixels"):
        if not call.is_float("x"):
            x = call.node("Cast", [x], part="numbers", to=onnx.TensorProto.FLOAT)
        rounded = call.node("Round", [x], part="rounded_pixels")
        darkest, brightest = call.number("darkest", 0.0), call.number("brightest", 255.0)
        x = call.node("Clip", [rounded, darkest, brightest], part="pixels")
        if call.flag("reversed"):
            x = call.node("Gather", [x, call.sizes("order", [2, 1, 0])], part="order_of_colours", axis=1)
    elif call.flag("half"):
        half = call.node("Cast", [x], part="half", to=onnx.TensorProto.FLOAT16)
        x = call.node("Cast", [half], part="whole", to=onnx.TensorProto.FLOAT)
    call.node("Cast", [x], to=onnx_type(declared.dtype))


@operation("nonMaximumSuppression")
def non_maximum_suppression(call: Call) -> None:
    """Of confidence [B, C] and coordinates [B, 4] (x and y of the centre, width, height) the rows that are left.

    A box has its highest confidence, and that class. Those below the confidence threshold go. Of the others the best
    one stays, what overlaps with it by more than the IoU threshold goes (with `per_class`, what of its class does), and
    so on. The best come first; of equal ones, the first.
    """
    confidence, boxes = call.tensor("confidence"), call.tensor("coordinates")
    if call.rank("confidence") != 2 or call.rank("coordinates") != 2:
        raise call.malformed("it takes confidences [boxes, classes] and coordinates [boxes, 4]")
    index = _best_first(call, _left(call, confidence, boxes))
    for output, values in zip(call.outputs, (confidence, boxes), strict=True):
        rows = f"{output}/rows"
        call.nodes("Gather", [values, index], [rows], axis=0)
        _filled(call, rows, output)


def _left(call: Call, confidence: str, boxes: str) -> str:
    """[B]: the highest confidence of each box that is left, and the lowest number in the place of the others."""
    lowest, first = call.number("lowest", _LOWEST), call.sizes("first", [0])
    best = call.node("ReduceMax", [confidence, call.sizes("classes", [1])], part="best", keepdims=0)
    enough = call.node("GreaterOrEqual", [best, call.tensor("confidence_threshold")], part="enough")
    candidates = call.node("Where", [enough, best, lowest], part="candidates")  # [B]
    if call.flag("per_class"):
        own = call.node("ArgMax", [confidence], part="own_class", axis=1, keepdims=1)  # [B, 1]
        count = call.node("Shape", [confidence], part="class_count", start=1)
        zero, one = (call.initializer(name, np.array(value, np.int64)) for name, value in (("zero", 0), ("one", 1)))
        limit = call.node("Squeeze", [count], part="class_limit")
        each = call.node("Range", [zero, limit, one], part="each_class")
        is_own = call.node("Equal", [own, each], part="is_own")  # [B, C]
        by_class = call.node("Transpose", [is_own], part="by_class", perm=[1, 0])
        candidates = call.node("Where", [by_class, candidates, lowest], part="class_candidates")  # [C, B]
    else:
        candidates = call.node("Unsqueeze", [candidates, first], part="all_candidates")  # [1, B]
    selected = call.node(
        "NonMaxSuppression",
        [
            call.node("Unsqueeze", [boxes, first], part="boxes"),  # [1, B, 4]
            call.node("Unsqueeze", [candidates, first], part="scores"),  # [1, 1 or C, B]
            call.node("Shape", [boxes], part="box_count", end=1),
            call.node("Reshape", [call.tensor("iou_threshold"), call.sizes("vector", [1])], part="overlap"),
            call.initializer("above", np.array([_LOWEST], np.float32)),
        ],
        part="selected",
        center_point_box=1,
    )  # [selected, (image, class, box)]
    last = call.initializer("box", np.array(2, np.int64))
    index = call.node("Gather", [selected, last], part="kept", axis=1)
    nothing = call.node("Expand", [lowest, call.node("Shape", [best], part="best_shape")], part="nothing")
    theirs = call.node("Gather", [best, index], part="theirs", axis=0)
    return call.node("ScatterElements", [nothing, index, theirs], part="left", axis=0)


def _best_first(call: Call, left: str) -> str:
    """The positions of the boxes that are left, at most as many as are asked for."""
    kept = call.node("Shape", [call.part("kept")], part="kept_count")
    if call.has("most"):
        kept = call.node("Min", [kept, call.sizes("most", [call.integer("most", 0)])], part="asked_for")
    index = call.part("index")
    call.nodes("TopK", [left, kept], [call.part("sorted"), index], axis=0)
    return index


def _filled(call: Call, rows: str, output: str) -> None:
    """At least as many rows as are asked for, the last ones zeros."""
    least = call.integer("least", 0)
    if not least:
        call.nodes("Identity", [rows], [output])
        return
    count, missing, pads = (f"{output}/{part}" for part in ("count", "missing", "pads"))
    none = call.sizes("none", [0])
    call.nodes("Shape", [rows], [count], end=1)
    call.nodes("Sub", [call.sizes("least", [least]), count], [f"{missing}/signed"])
    call.nodes("Max", [f"{missing}/signed", none], [missing])
    call.nodes("Concat", [none, none, missing, none], [pads], axis=0)
    call.nodes("Pad", [rows, pads], [output])
