"""Elements picked by positions that are constants, from samples that lie one after the other."""

import numpy as np

from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import Entry
from coreml_prune_bench.runtimes.portable.samples import separable, view


def picks_rows(entry: Entry) -> Entry:
    """`gather_along_axis`, where the positions are the same all along the other axes: whole rows, of any sample."""

    def keeps_batch(call: Call) -> bool:
        return entry.keeps_batch(call) or (separable("x")(call) and _rows(call) is not None)

    def translate(call: Call) -> None:
        rows = _rows(call) if call.batched_parameters() == ["x"] else None
        if rows is None:
            entry.translate(call)
            return
        axis = call.integer("axis", 0) % call.rank("x")
        apart = view(call, along_leading=axis == 0)
        apart.node("Gather", [apart.tensor("x"), call.initializer("rows", rows)], axis=axis + apart.shift)

    return Entry(translate, keeps_batch)


def _rows(call: Call) -> np.ndarray | None:
    """Int64, in bounds; None where each place has a position of its own, or they are not known."""
    if not call.is_constant("indices"):
        return None
    indices, axis = call.array("indices").astype(np.int64), call.integer("axis", 0) % call.rank("x")
    first = tuple(slice(None) if a == axis else slice(1) for a in range(indices.ndim))
    size, rest = call.fixed_shape("x")[axis], np.delete(indices.shape, axis)
    whole = np.array_equal(rest, np.delete(call.fixed_shape("x"), axis))
    if not whole or (indices != indices[first]).any() or not _inside(indices, size):
        return None
    return np.asarray(indices[first].reshape(-1) % size)


def picks_apart(entry: Entry) -> Entry:
    """`gather_nd`, where the positions are constants and the same for all samples of x."""

    def separates(call: Call) -> bool:
        return separable("x")(call) and call.batched_parameters() == ["x"] and call.is_constant("indices")

    def keeps_batch(call: Call) -> bool:
        return entry.keeps_batch(call) or (separates(call) and _places(call) is not None)

    def translate(call: Call) -> None:
        places = _places(call) if separates(call) else None
        if places is None:
            entry.translate(call)
            return
        depth = call.fixed_shape("indices")[-1]
        rest = call.fixed_shape("x")[depth:]
        flat = call.node("Reshape", [call.tensor("x"), call.sizes("flat_shape", [-1, places[1], *rest])], part="flat")
        picked = call.node("Gather", [flat, call.initializer("places", places[0])], part="picked", axis=1)
        call.node("Reshape", [picked, call.sizes("merged_shape", [-1, *call.output_type.fixed_shape[1:]])])

    return Entry(translate, keeps_batch)


def _places(call: Call) -> tuple[np.ndarray, int] | None:
    """Int64, where the elements lie if the dimensions that are picked from are one; and the size of that one."""
    indices = call.array("indices").astype(np.int64)
    sizes = call.fixed_shape("x")[: indices.shape[-1]]
    if not sizes or not _inside(indices, np.array(sizes)):
        return None
    return np.ravel_multi_index(tuple(np.moveaxis(indices % sizes, -1, 0)), tuple(sizes)), int(np.prod(sizes))


def _inside(indices: np.ndarray, sizes: np.ndarray | int) -> bool:
    return bool(((indices >= -np.asarray(sizes)) & (indices < sizes)).all())
