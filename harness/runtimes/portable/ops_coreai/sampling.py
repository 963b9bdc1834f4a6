"""Interpolation between the elements of a grid: a matrix for each axis along which there is something to do."""

import itertools

import numpy as np
from onnx import TensorProto

from coreml_prune_bench.runtimes.portable.graph import Call
from coreml_prune_bench.runtimes.portable.registry import operation

_MOST_DIMENSIONS = 6
"""Each doubles the corners between which a value lies."""


def _keeps_batch(call: Call) -> bool:
    constants = all(call.is_constant(parameter) for parameter in ("output_shape", "scale", "offset"))
    return (
        constants
        and call.batched_parameters() == ["x"]
        and call.shape("x")[0] is not None
        and _untouched(call, 0, call.ints("output_shape", [])[0])
    )


@operation("coreai.interpolate", batch=_keeps_batch)
def interpolate(call: Call) -> None:
    """Element i of an axis lies at (i + 0.5 - offset) / scale - 0.5 of the input, at its edge where that is outside."""
    shape, target = call.fixed_shape("x"), call.ints("output_shape", [])
    mode = call.text("interpolation_mode", "linear")
    if mode not in ("linear", "nearest_neighbor"):
        raise call.malformed(f"interpolation_mode is {mode!r}")
    axes = [axis for axis in range(len(shape)) if not _untouched(call, axis, target[axis])]
    x = call.tensor("x")
    if not axes:
        call.same_as("x")
        return
    for axis in axes:
        part = None if axis == axes[-1] else f"axis{axis}"
        call.bounded(target[axis], shape[axis])
        at = _coordinates(call, axis, shape[axis], target[axis])
        if mode == "nearest_neighbor":
            positions = call.initializer(f"positions{axis}", np.rint(at).astype(np.int64))  # halves to the even one
            x = call.node("Gather", [x, positions], part=part, axis=axis)
        else:
            x = _along(call, x, axis, len(shape), _matrix(at, shape[axis]), part)


@operation("coreai.interpolate_coordinates")
def interpolate_coordinates(call: Call) -> None:
    """Of a field with K dimensions the values [N] at `coordinates` [N, K], at its edge where those are outside."""
    shape, mode = call.fixed_shape("x"), call.text("interpolation_mode", "linear")
    if mode not in ("linear", "nearest_neighbor"):
        raise call.malformed(f"interpolation_mode is {mode!r}")
    if len(shape) > _MOST_DIMENSIONS:
        raise call.unsupported(f"it interpolates in {len(shape)} dimensions, of at most {_MOST_DIMENSIONS}")
    last = call.initializer("last", np.array([size - 1 for size in shape], np.float32))
    above = call.node("Max", [call.tensor("coordinates"), call.number("zero", 0)], part="above")
    at = call.node("Min", [above, last], part="at")  # [N, K]
    if mode == "nearest_neighbor":
        nearest = call.node("Cast", [call.node("Round", [at], part="rounded")], part="nearest", to=TensorProto.INT64)
        call.node("GatherND", [call.tensor("x"), nearest])
        return
    low = call.node("Floor", [at], part="low")
    high = call.node("Min", [call.node("Add", [low, call.number("one", 1)], part="next"), last], part="high")
    beyond = call.node("Sub", [at, low], part="beyond")
    before = call.node("Sub", [call.number("whole", 1), beyond], part="before")
    axes, parts = call.sizes("axes", [1]), []
    for number, corner in enumerate(itertools.product((False, True), repeat=len(shape))):
        upper = call.initializer(f"upper{number}", np.array(corner))
        place = call.node("Where", [upper, high, low], part=f"place{number}")
        index = call.node("Cast", [place], part=f"index{number}", to=TensorProto.INT64)
        factors = call.node("Where", [upper, beyond, before], part=f"factors{number}")
        weight = call.node("ReduceProd", [factors, axes], part=f"weight{number}", keepdims=0)
        value = call.node("GatherND", [call.tensor("x"), index], part=f"value{number}")
        parts.append(call.node("Mul", [value, weight], part=f"part{number}"))
    call.node("Sum", parts)


def _untouched(call: Call, axis: int, target: int) -> bool:
    size, scale, offset = call.shape("x")[axis], call.array("scale")[axis], call.array("offset")[axis]
    return bool(size == target and scale == 1 and offset == 0)


def _coordinates(call: Call, axis: int, size: int, target: int) -> np.ndarray:
    scale, offset = (call.array(parameter).astype(np.float64)[axis] for parameter in ("scale", "offset"))
    return np.clip((np.arange(target) + 0.5 - offset) / scale - 0.5, 0, size - 1)


def _matrix(at: np.ndarray, size: int) -> np.ndarray:
    """[target, size]: what each element of the input gives to each of the output."""
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((len(at), size), np.float32)
    rows = np.arange(len(at))
    np.add.at(matrix, (rows, low), 1 - (at - low))
    np.add.at(matrix, (rows, high), at - low)
    return matrix


def _along(call: Call, x: str, axis: int, rank: int, matrix: np.ndarray, part: str | None) -> str:
    if axis == rank - 1:
        return call.node("MatMul", [x, call.initializer(f"matrix{axis}", matrix.T)], part=part)
    if axis == rank - 2:
        return call.node("MatMul", [call.initializer(f"matrix{axis}", matrix), x], part=part)
    perm = [*(a for a in range(rank) if a != axis), axis]
    moved = call.node("Transpose", [x], part=f"moved{axis}", perm=perm)
    mixed = call.node("MatMul", [moved, call.initializer(f"matrix{axis}", matrix.T)], part=f"mixed{axis}")
    return call.node("Transpose", [mixed], part=part, perm=[perm.index(a) for a in range(rank)])
