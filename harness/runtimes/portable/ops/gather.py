"""Gathering and scattering elements by index.

Definitions: coremltools/converters/mil/mil/ops/defs/{iOS15,iOS16,iOS17}/scatter_gather.py. iOS16 adds `batch_dims`;
iOS17 adds `validate_indices` and takes negative indices for out of bounds.

What an index out of bounds does is undefined there, unless `validate_indices` forbids it. Here a scatter of iOS17
leaves out what would land out of bounds; everything else makes the prediction fail, except that a gather takes a
negative index as it did before iOS17.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation

_REDUCTIONS = {"update": "none", "add": "add", "sub": "add", "mul": "mul", "div": "mul", "max": "max", "min": "min"}
"""How ONNX scatters in each mode. `sub` scatters the negative updates; `div` divides by the product of the updates."""


# --- indices


def _counts_from_end(call: Call) -> bool:
    """Whether a negative index counts from the end. Operation sets are named CoreML5 (iOS15), CoreML6 and so on."""
    opset = call.operation.opset or call.graph.program.opset
    return int(opset.removeprefix("CoreML")) < 7


def _check(call: Call, sizes: Sequence[int | None]) -> None:
    """Constant indices that are validated are in bounds: `sizes` holds the bound, or one for each along the last axis.

    Raises PackageError where one is not.
    """
    if not call.flag("validate_indices") or not call.is_constant("indices"):
        return
    bounds = np.array([np.iinfo(np.int32).max if size is None else size for size in sizes])
    indices = call.array("indices")
    if ((indices < 0) | (indices >= bounds)).any():
        raise call.malformed(f"an index is out of bounds, they are to be in [0, {bounds.tolist()})")


def _indices(call: Call, sizes: Sequence[int | None], *, wide: bool) -> str:
    """The indices, Int64 if `wide`. Those that are validated and negative become such as ONNX Runtime refuses too.

    `sizes` holds the bound of the indices, or one bound for each along their last axis.
    """
    _check(call, sizes)
    indices = call.int64("indices") if wide else call.tensor("indices")
    if not call.flag("validate_indices") or call.is_constant("indices"):
        return indices
    refused = call.initializer("refused", np.array(np.iinfo(np.int32).max, np.int64 if wide else np.int32))
    zero = call.initializer("zero", np.array(0, np.int64 if wide else np.int32))
    return call.node("Where", [call.node("Less", [indices, zero], part="negative"), refused, indices], part="checked")


def _axis(call: Call, parameter: str) -> int:
    rank, axis = call.rank(parameter), call.integer("axis", 0)
    if not -rank <= axis < rank:
        raise call.malformed(f"axis is {axis}, and {parameter!r} has {rank} dimensions")
    return axis % rank


# --- gather


def _gather_keeps_batch(call: Call) -> bool:
    """Rows of a batched x, the same for all; or rows of a table, for a batch of indices; or of both, lined up."""
    batched = call.batched_parameters()
    aligned = call.integer("batch_dims", 0)
    if batched == ["x"]:
        return aligned == 0 and _axis(call, "x") != 0
    if batched == ["indices"]:
        return aligned == 0 and _axis(call, "x") == 0
    return aligned > 0


@operation("gather", batch=_gather_keeps_batch)
def gather(call: Call) -> None:
    axis, aligned = _axis(call, "x"), call.integer("batch_dims", 0)
    indices = _indices(call, [call.shape("x")[axis]], wide=aligned > 0)
    if aligned == 0:
        call.node("Gather", [call.tensor("x"), indices], axis=axis)
        return
    if not 0 < aligned <= min(axis, call.rank("indices")):
        raise call.malformed(f"batch_dims is {aligned}, axis {axis}")
    # GatherND takes rows after the batch dimensions: the axis goes there, what stood between goes behind it.
    rank, between = call.rank("x"), range(aligned, axis)
    perm = [*range(aligned), axis, *between, *range(axis + 1, rank)]
    rows = call.node("Transpose", [call.tensor("x")], part="rows", perm=perm) if between else call.tensor("x")
    last = call.sizes("last", [-1])
    positions = call.node("Unsqueeze", [indices, last], part="positions")
    part = "gathered" if between else None
    gathered = call.node("GatherND", [rows, positions], part=part, batch_dims=aligned)
    if between:
        # [*batch, *indices, *between, *rest] -> [*batch, *between, *indices, *rest]
        end = call.rank("indices")
        moved = range(end, end + len(between))
        perm = [*range(aligned), *moved, *range(aligned, end), *range(moved.stop, end + rank - aligned - 1)]
        call.node("Transpose", [gathered], perm=perm)


def _along_axis_keeps_batch(call: Call) -> bool:
    return set(call.batched_parameters()) == {"x", "indices"} and _axis(call, "x") != 0


@operation("gather_along_axis", batch=_along_axis_keeps_batch)
def gather_along_axis(call: Call) -> None:
    axis = _axis(call, "x")
    indices = _indices(call, [call.shape("x")[axis]], wide=False)
    call.node("GatherElements", [call.tensor("x"), indices], axis=axis)


def _gather_nd_keeps_batch(call: Call) -> bool:
    if call.batched_parameters() == ["indices"]:
        return call.integer("batch_dims", 0) == 0 and call.rank("indices") > 1
    return set(call.batched_parameters()) == {"x", "indices"} and call.integer("batch_dims", 0) > 0


@operation("gather_nd", batch=_gather_nd_keeps_batch)
def gather_nd(call: Call) -> None:
    aligned, depth = call.integer("batch_dims", 0), _depth(call)
    indices = _indices(call, call.shape("x")[aligned : aligned + depth], wide=True)
    call.node("GatherND", [call.tensor("x"), indices], batch_dims=aligned)


def _depth(call: Call) -> int:
    """How many dimensions the last axis of the indices selects from."""
    depth = call.shape("indices")[-1]
    if depth is None:
        raise call.unsupported("the size of the last dimension of 'indices' is not fixed")
    return depth


# --- scatter


def _scatter_keeps_batch(call: Call) -> bool:
    """Into rows of a batched `data`, the same for all."""
    return set(call.batched_parameters()) == {"data", "updates"} and _axis(call, "data") != 0


@operation("scatter", batch=_scatter_keeps_batch)
def scatter(call: Call) -> None:
    axis, rank, depth = _axis(call, "data"), call.rank("data"), call.rank("indices")
    data, updates = call.tensor("data"), call.tensor("updates")
    last = call.sizes("last", [-1])
    size = call.shape("data")[axis]
    positions = call.node("Unsqueeze", [_indices(call, [size], wide=True), last], part="positions")
    if axis == 0:
        _scatter(call, "ScatterND", data, positions, updates, [size], part=None)
        return
    # The axis goes first: [*before, axis, *after] -> [axis, *before, *after]; so do the indices' axes in the updates.
    before, after = range(axis), range(axis + depth, rank - 1 + depth)
    rows = call.node("Transpose", [data], part="rows", perm=[axis, *before, *range(axis + 1, rank)])
    perm = [*range(axis, axis + depth), *before, *after]
    updates = call.node("Transpose", [updates], part="updates", perm=perm)
    scattered = _scatter(call, "ScatterND", rows, positions, updates, [size], part="scattered")
    call.node("Transpose", [scattered], perm=[*range(1, axis + 1), 0, *range(axis + 1, rank)])


def _scatter_along_axis_keeps_batch(call: Call) -> bool:
    return set(call.batched_parameters()) == {"data", "indices", "updates"} and _axis(call, "data") != 0


@operation("scatter_along_axis", batch=_scatter_along_axis_keeps_batch)
def scatter_along_axis(call: Call) -> None:
    axis = _axis(call, "data")
    size = call.shape("data")[axis]
    indices = _indices(call, [size], wide=True)
    data, updates = call.tensor("data"), call.tensor("updates")
    _scatter(call, "ScatterElements", data, indices, updates, [size], part=None, axis=axis)


@operation("scatter_nd")
def scatter_nd(call: Call) -> None:
    sizes = call.shape("data")[: _depth(call)]
    indices = _indices(call, sizes, wide=True)
    _scatter(call, "ScatterND", call.tensor("data"), indices, call.tensor("updates"), sizes, part=None)


def _scatter(
    call: Call,
    op_type: str,
    data: str,
    indices: str,
    updates: str,
    sizes: Sequence[int | None],
    *,
    part: str | None,
    axis: int = 0,
) -> str:
    """`updates` into `data` where `indices`, which `sizes` bound, say, by the call's `mode`."""
    mode = call.text("mode", "add")
    if mode not in _REDUCTIONS:
        raise call.malformed(f"mode is {mode!r}")
    if mode == "sub":
        updates = call.node("Neg", [updates], part="negative_updates")
    target = _ones_like(call, data) if mode == "div" else data
    # Undefined, says the definition, but not an error: such an update goes to a row that is cut off again.
    spare = not _counts_from_end(call) and not call.flag("validate_indices") and not _in_bounds(call, sizes)
    if spare:
        indices = _spare_if_outside(call, op_type, indices, sizes)
        target = _with_spare_row(call, target, axis)
    attributes = {"axis": axis} if op_type == "ScatterElements" else {}
    whole = not spare and mode != "div"
    result = call.node(
        op_type,
        [target, indices, updates],
        part=part if whole else "reduced",
        reduction=_REDUCTIONS[mode],
        **attributes,
    )
    if spare:
        cut = [call.sizes("first", [0]), call.sizes("cut", [-1]), call.sizes("spare_axis", [axis])]
        result = call.node("Slice", [result, *cut], part="product" if mode == "div" else part)
    return call.node("Div", [data, result], part=part) if mode == "div" else result


def _in_bounds(call: Call, sizes: Sequence[int | None]) -> bool:
    if not call.is_constant("indices") or None in sizes:
        return False
    indices = call.array("indices")
    return bool(((indices >= 0) & (indices < np.array(sizes))).all())


def _spare_if_outside(call: Call, op_type: str, indices: str, sizes: Sequence[int | None]) -> str:
    if None in sizes:
        raise call.unsupported("the size of a dimension that it scatters into is not fixed")
    bounds = call.sizes("bounds", [size or 0 for size in sizes])
    inside = call.node(
        "And",
        [
            call.node("GreaterOrEqual", [indices, call.sizes("zeros", [0])], part="not_negative"),
            call.node("Less", [indices, bounds], part="not_beyond"),
        ],
        part="inside",
    )
    if op_type == "ScatterND":  # the indices of one element lie along the last axis
        bits = call.node("Cast", [inside], part="inside/bits", to=onnx.TensorProto.INT32)
        least = call.node("ReduceMin", [bits, call.sizes("last_axis", [-1])], part="inside/least")
        inside = call.node("Cast", [least], part="inside/all", to=onnx.TensorProto.BOOL)
    row = call.sizes("spare", [sizes[0] or 0, *[0] * (len(sizes) - 1)])
    return call.node("Where", [inside, indices, row], part="spared")


def _with_spare_row(call: Call, data: str, axis: int) -> str:
    pads = call.sizes("spare_row", [0, 1])
    return call.node("Pad", [data, pads, "", call.sizes("padded_axis", [axis])], part="with_spare_row")


def _ones_like(call: Call, data: str) -> str:
    one = np.ones(1, np.float32 if call.is_float("data") else np.int32)
    shape = call.node("Shape", [data], part="shape")
    return call.node("ConstantOfShape", [shape], part="ones", value=numpy_helper.from_array(one))
