"""Which elements: by a condition, by their order, by their overlap.

Definitions: coremltools/converters/mil/mil/ops/defs/iOS15, iOS16 and iOS17, tensor_operation.py; iOS15/control_flow.py
(select).
"""

import numpy as np
import onnx

from coreml_prune_bench.runtimes.portable.batch import broadcast, spares_leading
from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation

_LOWEST = float(np.finfo(np.float32).min)


@operation("select", batch=broadcast)
def select(call: Call) -> None:
    condition, a, b = (call.tensor(parameter) for parameter in ("cond", "a", "b"))
    if call.type("a").dtype != "bool":
        call.node("Where", [condition, a, b])
        return
    # ONNX Runtime has no Where for flags.
    chosen = call.node("And", [condition, a], part="chosen")
    otherwise = call.node("And", [call.node("Not", [condition], part="not"), b], part="otherwise")
    call.node("Or", [chosen, otherwise])


@operation("non_zero")
def non_zero(call: Call) -> None:
    positions = call.node("NonZero", [call.tensor("x")], part="columns")  # [rank, N]
    rows = call.node("Transpose", [positions], part="rows", perm=[1, 0])
    call.node("Cast", [rows], to=onnx.TensorProto.INT32)


@operation("topk", batch=spares_leading("axis", default=[-1]))
def topk(call: Call) -> None:
    """Always sorted, which `sort` = False leaves open. Of equal values the first comes first."""
    indices = _top(call, call.integer("k", 1), call.outputs[0])
    if len(call.outputs) > 1:
        call.nodes("Cast", [indices], [call.outputs[1]], to=onnx.TensorProto.INT32)


@operation("argsort", batch=spares_leading("axis", default=[-1]))
def argsort(call: Call) -> None:
    call.node("Cast", [_top(call, -1, call.part("values"))], to=onnx.TensorProto.INT32)


def _top(call: Call, k: int, values: str) -> str:
    """The first `k` along the axis, all of them if it is -1. Returns their positions."""
    shape = call.shape("x")
    axis = call.integer("axis", -1) % len(shape)
    size = shape[axis]
    if k == -1 and size is None:
        number = call.node("Shape", [call.tensor("x")], part="size", start=axis, end=axis + 1)
    elif size is not None and k > size:
        raise call.malformed(f"there are no {k} elements along an axis of {size}")
    else:
        number = call.sizes("k", [size or 0 if k == -1 else k])
    largest = int(not call.flag("ascending"))
    indices = call.part("indices")
    call.nodes("TopK", [call.tensor("x"), number], [values, indices], axis=axis, largest=largest)
    return indices


# --- non_maximum_suppression


@operation(
    "non_maximum_suppression",
    batch=lambda call: call.batched_parameters() in (["boxes", "scores"], ["scores", "boxes"]),
)
def non_maximum_suppression(call: Call) -> None:
    """The best boxes by their best class, without those that overlap with a better one; at least one box.

    A box belongs to its best class. Room for boxes that are not there is filled with zeros, and -1 for their indices.
    iOS17 has the boxes in the last dimension, no `score_threshold`, and no count of the boxes.
    """
    turned = not call.has("score_threshold")  # iOS17
    boxes, scores = (_box_by_box(call, parameter, turned=turned) for parameter in ("boxes", "scores"))
    best = call.node("ReduceMax", [scores, call.sizes("classes", [2])], part="best", keepdims=0)  # [n, B]
    index, is_box = _sorted_boxes(call, _surviving_scores(call, boxes, scores, best))  # [n, max_boxes] each
    _write_boxes(call, boxes, index, is_box, call.outputs[0], turned=turned)
    _write_boxes(call, scores, index, is_box, call.outputs[1], turned=turned)
    none = call.initializer("none", np.array(-1, np.int64))
    known = call.node("Where", [is_box, index, none], part="known")
    call.nodes("Cast", [known], [call.outputs[2]], to=onnx.TensorProto.INT32)
    if not turned:
        ones = call.node("Cast", [is_box], part="ones", to=onnx.TensorProto.INT32)
        call.nodes("ReduceSum", [ones, call.sizes("row", [1])], [call.outputs[3]], keepdims=0)


def _box_by_box(call: Call, parameter: str, *, turned: bool) -> str:
    """[n, B, 4] or [n, B, K]"""
    name = call.tensor(parameter)
    return call.node("Transpose", [name], part=f"{parameter}_rows", perm=[0, 2, 1]) if turned else name


def _surviving_scores(call: Call, boxes: str, scores: str, best: str) -> str:
    """[n, B]: the best score of each box that is left, and the lowest number in the place of the others."""
    lowest = call.number("lowest", _LOWEST)
    candidates = call.node("Unsqueeze", [best, call.sizes("class_axis", [1])], part="candidates")  # [n, 1, B]
    if call.flag("per_class_suppression"):
        candidates = call.node("Where", [_is_own_class(call, scores), candidates, lowest], part="by_class")  # [n, K, B]
    # ONNX Runtime selects what is above a threshold, Core ML what is not below it.
    threshold = np.nextafter(np.float32(call.real("score_threshold", _LOWEST)), np.float32(-np.inf))
    selected = call.node(
        "NonMaxSuppression",
        [
            boxes,
            candidates,
            call.sizes("most", [call.integer("max_boxes", 0)]),
            call.initializer("overlap", np.array([call.real("iou_threshold")], np.float32)),
            call.initializer("threshold", np.maximum(threshold, np.float32(_LOWEST)).reshape(1)),
        ],
        part="selected",
        center_point_box=1,
    )  # [selected, (batch, class, box)]
    places = call.node("Gather", [selected, call.sizes("batch_and_box", [0, 2])], part="places", axis=1)
    nothing = call.node("Expand", [lowest, call.node("Shape", [best], part="shape")], part="nothing")
    survivors = call.node(
        "ScatterND", [nothing, places, call.node("GatherND", [best, places], part="theirs")], part="marked"
    )
    first = call.node("ArgMax", [best], part="first", axis=1)
    top = call.node("ReduceMax", [best, call.sizes("row_of_best", [1])], part="top")
    return call.node("ScatterElements", [survivors, first, top], part="survivors", axis=1)


def _is_own_class(call: Call, scores: str) -> str:
    """[n, K, B]: whether this is the box's best class."""
    classes = call.shape("scores")[1 if not call.has("score_threshold") else 2]
    if classes is None:
        raise call.unsupported("the number of classes is not fixed")
    own = call.node("ArgMax", [scores], part="own_class", axis=2, keepdims=0)  # [n, B]
    own = call.node("Unsqueeze", [own, call.sizes("own_axis", [1])], part="own")
    return call.node("Equal", [own, call.initializer("each", np.arange(classes).reshape(-1, 1))], part="is_own")


def _sorted_boxes(call: Call, survivors: str) -> tuple[str, str]:
    """[n, max_boxes]: which boxes are left, the best first, and whether there is one."""
    most = call.integer("max_boxes", 0)
    room = call.sizes("room", [0, 0, 0, most])  # there may be fewer boxes than are asked for
    padded = call.node("Pad", [survivors, room, call.number("no_score", _LOWEST)], part="padded")
    values, index = call.part("values"), call.part("index")
    call.nodes("TopK", [padded, call.sizes("max_boxes", [most])], [values, index], axis=1)
    return index, call.node("Greater", [values, call.number("least", _LOWEST)], part="is_box")


def _write_boxes(call: Call, rows: str, index: str, is_box: str, output: str, *, turned: bool) -> None:
    """What stands in `rows` [n, B, ...] for each box that is selected."""
    last = call.sizes("last", [2])
    first = call.initializer("any", np.array(0, np.int64))
    inside = call.node("Where", [is_box, index, first], part=f"{output}_inside")
    inside = call.node("Unsqueeze", [inside, last], part=f"{output}_places")
    gathered = call.node("GatherND", [rows, inside], part=f"{output}_gathered", batch_dims=1)
    mask = call.node("Unsqueeze", [is_box, last], part=f"{output}_mask")
    result = f"{output}/rows" if turned else output
    call.nodes("Where", [mask, gathered, call.number("zero", 0.0)], [result])
    if turned:
        call.nodes("Transpose", [result], [output], perm=[0, 2, 1])
