"""Core AI's operations on small operands, and what NumPy, SciPy or torch make of the same."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.ndimage
import scipy.special
import torch


@dataclass(frozen=True)
class Given:
    """An operand that the caller gives, different for each sample. flag: whether it is not zero is what counts."""

    array: np.ndarray
    flag: bool = False


@dataclass(frozen=True)
class Case:
    """expected: of the operands' arrays. at_once: whether a batch runs as one."""

    name: str
    operands: Sequence[Given | np.ndarray | int | float]
    expected: Callable[..., Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    at_once: bool = True


def x(*shape: int, low: float = -3.0, high: float = 3.0) -> Given:
    """Of these sizes behind a leading 1, no two alike."""
    size = math.prod(shape)
    steps = np.linspace(low, high, size, dtype=np.float32)
    return Given(steps[np.argsort(np.sin(np.arange(size) * 7.0))].reshape(1, *shape))


def whole(*shape: int, low: int = -8, high: int = 9) -> Given:
    return Given((np.arange(math.prod(shape)) * 5 % (high - low) + low).astype(np.int32).reshape(1, *shape))


def flags(*shape: int) -> Given:
    return Given((whole(*shape).array % 3 > 0).astype(np.float32), flag=True)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def turned(a: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(a))


X, Y, N = x(3, 4), x(3, 4, low=0.5, high=4), whole(3, 4)
IMAGE = x(2, 7, 6)
_ABOVE = x(5, low=0.2, high=4)
_INSIDE = x(5, low=-0.9, high=0.9)

UNARY: list[tuple[str, Given, Callable[[np.ndarray], Any]]] = [
    ("abs", X, np.abs),
    ("abs", N, np.abs),
    ("acos", _INSIDE, np.arccos),
    ("acosh", x(5, low=1.1, high=9), np.arccosh),
    ("asin", _INSIDE, np.arcsin),
    ("asinh", X, np.arcsinh),
    ("atan", X, np.arctan),
    ("atanh", _INSIDE, np.arctanh),
    ("cos", X, np.cos),
    ("cosh", X, np.cosh),
    ("erf", X, scipy.special.erf),
    ("exp", X, np.exp),
    ("log", _ABOVE, np.log),
    ("not", flags(3, 4), np.logical_not),
    ("relu", X, lambda a: np.maximum(a, 0)),
    ("round", Given(np.array([[0.5, 1.5, -2.5, 0.4, -0.6]], np.float32)), np.round),
    ("rsqrt", _ABOVE, lambda a: 1 / np.sqrt(a)),
    ("sigmoid", X, scipy.special.expit),
    ("silu", X, lambda a: a * scipy.special.expit(a)),
    ("sin", X, np.sin),
    ("sinh", X, np.sinh),
    ("sqrt", _ABOVE, np.sqrt),
    ("tan", _INSIDE, np.tan),
    ("tanh", X, np.tanh),
]


def _gelu(kind: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: torch.nn.functional.gelu(turned(a), approximate=kind).numpy()


BINARY: list[tuple[str, Given, Given | np.ndarray, Callable[..., Any]]] = [
    ("add", X, Y, np.add),
    ("add", x(3, 4), np.arange(12, dtype=np.float32).reshape(3, 4), np.add),
    ("sub", x(3, 1), x(1, 4), np.subtract),
    ("mul", X, Y, np.multiply),
    ("divide", X, Y, np.divide),
    ("divide", N, whole(3, 4, low=2, high=7), lambda a, b: np.trunc(a / b).astype(np.int32)),
    ("floor_divide", N, whole(3, 4, low=2, high=7), np.floor_divide),
    ("floor_divide", X, Y, np.floor_divide),
    ("modulo", X, Y, np.fmod),
    ("modulo", N, whole(3, 4, low=2, high=7), np.fmod),
    ("pow", Y, X, np.power),
    ("maximum", X, Y, np.maximum),
    ("minimum", X, Y, np.minimum),
    ("equal", N, whole(3, 4, low=-8, high=5), np.equal),
    ("not_equal", N, whole(3, 4, low=-8, high=5), np.not_equal),
    ("greater", X, Y, np.greater),
    ("and", flags(3, 4), flags(1, 4), np.logical_and),
    ("or", flags(3, 4), flags(1, 4), np.logical_or),
    ("xor", flags(3, 4), flags(1, 4), np.logical_xor),
    ("bitwise_and", N, whole(3, 4, low=1), np.bitwise_and),
    ("bitwise_or", N, whole(3, 4, low=1), np.bitwise_or),
    ("bitwise_xor", N, whole(3, 4, low=1), np.bitwise_xor),
    ("bitwise_xor", flags(3, 4), flags(1, 4), np.logical_xor),
    ("batch_matmul", x(2, 3, 4), x(2, 4, 5), np.matmul),
    ("batch_matmul", x(3, 4), np.arange(8, dtype=np.float32).reshape(4, 2), np.matmul),
]

_AXES = [ints(1), ints(-1, 1), ints(0, 2)]
REDUCTIONS: dict[str, tuple[Given, Callable[..., Any]]] = {
    "reduce_max": (X, np.max),
    "reduce_mean": (X, np.mean),
    "reduce_min": (X, np.min),
    "reduce_product": (X, np.prod),
    "reduce_sum": (X, np.sum),
    "any": (flags(3, 4), np.any),
    "all": (flags(3, 4), np.all),
}


def _argsort(a: np.ndarray, axis: Any, descending: Any, stable: Any) -> np.ndarray:
    return np.argsort(-a if descending else a, int(axis), kind="stable").astype(np.int32)


def _conv(rank: int) -> Callable[..., Any]:
    convolve = {2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[rank]

    def expected(a: np.ndarray, weight: np.ndarray, strides: Any, dilations: Any, groups: Any) -> Any:
        options = {"stride": strides.tolist(), "dilation": dilations.tolist(), "groups": int(groups)}
        return convolve(turned(a), turned(weight), **options).numpy()

    return expected


def _conv_transpose(rank: int) -> Callable[..., Any]:
    convolve = {2: torch.nn.functional.conv_transpose2d, 3: torch.nn.functional.conv_transpose3d}[rank]

    def expected(a: np.ndarray, weight: np.ndarray, *given: Any) -> Any:
        strides, padding, dilations, output_padding, groups = (value.tolist() for value in given)
        options = (strides, padding, output_padding, groups, dilations)
        return convolve(turned(a), turned(weight), None, *options).numpy()

    return expected


def _windows(combine: Callable[..., Any], *, floor: bool = True) -> Callable[..., Any]:
    """Over windows of the last dimensions, picked one by one; beyond the end there is nothing."""

    def expected(a: np.ndarray, kernel: Any, strides: Any, dilations: Any, ceil_mode: Any = False) -> Any:
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        rounding = math.ceil if ceil_mode else math.floor
        sizes = a.shape[2:]
        counts = [rounding((n - span) / s) + 1 for n, span, s in zip(sizes, spans, strides, strict=True)]
        result = np.empty((*a.shape[:2], *counts), a.dtype)
        for place in np.ndindex(*counts):
            window = a
            for axis, (i, s, d, span) in enumerate(zip(place, strides, dilations, spans, strict=True), start=2):
                window = window.take(range(i * s, min(i * s + span, a.shape[axis]), d), axis)
            result[(..., *place)] = combine(window, tuple(range(2, a.ndim)))
        return result

    return expected


def _interpolated(a: np.ndarray, target: Any, scale: Any, offset: Any) -> Any:
    """Halves of pixels, as torch resizes without aligned corners."""
    return torch.nn.functional.interpolate(turned(a), size=target.tolist()[2:], mode="bilinear").numpy()


def _sampled(mode: str) -> Callable[[np.ndarray, np.ndarray], Any]:
    def expected(a: np.ndarray, at: np.ndarray) -> Any:
        order = 1 if mode == "linear" else 0
        clipped = np.clip(at.T, 0, np.array(a.shape)[:, None] - 1)
        clipped = np.round(clipped) if order == 0 else clipped
        return scipy.ndimage.map_coordinates(a, clipped, order=order, mode="nearest")

    return expected


def _updated(a: np.ndarray, begin: Any, end: Any, strides: Any, update: np.ndarray) -> np.ndarray:
    result = a.copy()
    result[tuple(slice(*b) for b in zip(begin, end, strides, strict=True))] = update
    return result


def _scattered(a: np.ndarray, indices: np.ndarray, updates: np.ndarray, axis: Any) -> np.ndarray:
    result = a.copy()
    np.put_along_axis(result, indices, updates, int(axis))
    return result


def _dequantized(a: np.ndarray, scale: Any, first: Any, second: Any, axis: Any) -> Any:
    shape = [-1 if d == axis else 1 for d in range(a.ndim)] if np.size(scale) > 1 else []
    return (a - np.reshape(first, shape)) * np.reshape(scale, shape) + np.reshape(second, shape)


def _quantized(a: np.ndarray, scale: Any, first: Any, second: Any, axis: Any) -> Any:
    shape = [-1 if d == axis else 1 for d in range(a.ndim)] if np.size(scale) > 1 else []
    steps = np.round((a - np.reshape(second, shape)) / np.reshape(scale, shape)) + np.reshape(first, shape)
    return np.clip(steps, -128, 127).astype(np.int8)


_PADDING = ints(0, 0, 1, 2, 0, 3)
_MODES = {
    "constant": "constant",
    "replicate": "edge",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "circular": "wrap",
}


def _padded(mode: str) -> Callable[..., Any]:
    options = {"constant_values": 1.5} if mode == "constant" else {}
    return lambda a, padding, value: np.pad(a, padding.reshape(-1, 2), mode=_MODES[mode], **options)


_KERNEL, _STRIDES, _DILATIONS = ints(2, 3), ints(2, 1), ints(2, 1)
_BLOCKS = np.arange(6, dtype=np.float32).reshape(2, 3) / 4 + 0.25

MOVES = [
    Case("argmax", [X, ints(2)[0]], lambda a, axis: a.argmax(axis, keepdims=True).astype(np.int32)),
    Case("sort", [X, ints(-1)[0], np.array(True), np.array(True)], lambda a, *_: -np.sort(-a, -1)),
    Case("sort", [X, ints(0)[0], np.array(False), np.array(True)], lambda a, *_: np.sort(a, 0)),
    Case("argsort", [X, ints(1)[0], np.array(False), np.array(True)], _argsort),
    Case("scan", [X, ints(-1)[0], np.array(False)], lambda a, *_: a.cumsum(-1), {"scan_op": 0}),
    Case("scan", [X, ints(1)[0], np.array(True)], lambda a, *_: a[:, ::-1].cumsum(1)[:, ::-1], {"scan_op": 0}),
    Case("scan", [X, ints(2)[0], np.array(False)], lambda a, *_: a.cumprod(2), {"scan_op": 1}),
    Case("scan", [N, ints(2)[0], np.array(False)], lambda a, *_: np.minimum.accumulate(a, 2), {"scan_op": 2}),
    Case(
        "scan",
        [X, ints(1)[0], np.array(True)],
        lambda a, *_: np.maximum.accumulate(a[:, ::-1], 1)[:, ::-1],
        {"scan_op": 3},
    ),
    Case("softmax", [X, ints(-1)[0]], lambda a, axis: scipy.special.softmax(a, int(axis))),
    Case("softmax", [X, ints(1)[0]], lambda a, axis: scipy.special.softmax(a, int(axis))),
    Case("reverse", [X, ints(1, 2)], lambda a, axes: np.flip(a, tuple(axes))),
    Case("reshape", [X, ints(1, 2, 6)], lambda a, shape: a.reshape(shape)),
    Case("transpose", [X, ints(0, 2, 1)], lambda a, axes: a.transpose(axes)),
    Case("expand_dims", [X, ints(1)], lambda a, axes: np.expand_dims(a, 1)),
    Case("shrink_dims", [x(1, 4), ints(1)], lambda a, axes: a.squeeze(1)),
    Case("concat", [ints(1)[0], X, x(2, 4)], lambda axis, a, b: np.concatenate((a, b), 1)),
    Case("concat", [ints(1)[0], X, np.ones((1, 1, 4), np.float32)], lambda axis, a, b: np.concatenate((a, b), 1)),
    Case("split", [X, ints(1, 3), ints(2)[0]], lambda a, sizes, axis: np.split(a, [1], 2)),
    Case("split", [X, ints(2)[0], ints(1)[0]], lambda a, sizes, axis: np.split(a, [2], 1)),
    Case("tile", [X, ints(1, 2, 3)], lambda a, reps: np.tile(a, reps)),
    Case("broadcast_to", [x(1, 4), ints(1, 3, 4)], lambda a, shape: np.broadcast_to(a, shape)),
    Case("broadcast_in_dims", [x(1, 4), ints(3), ints(1)], lambda a, sizes, axes: np.broadcast_to(a, (1, 3, 4))),
    Case("broadcast_shapes", [ints(3, 1), ints(2, 1, 4)], lambda a, b: ints(2, 3, 4), at_once=False),
    Case("get_shape", [X], lambda a: ints(*a.shape), at_once=False),
    Case("range", [ints(2)[0], ints(11)[0], ints(3)[0]], lambda a, b, c: np.arange(a, b, c), at_once=False),
    Case("non_zero", [N], lambda a: np.argwhere(a).astype(np.int32), at_once=False),
    Case("cast", [X], lambda a: a.astype(np.int32)),
    Case("where", [flags(3, 4), X, np.float32(2)], np.where),
    Case("where", [flags(1, 4), X, Y], np.where),
    Case(
        "gather_along_axis", [X, whole(2, 4, low=-3, high=3), ints(1)[0]], lambda a, i, d: np.take_along_axis(a, i, 1)
    ),
    Case(
        "gather_along_axis",
        [X, np.broadcast_to(ints(2, 0, -1).reshape(1, 3, 1), (1, 3, 4)).copy(), ints(1)[0]],
        lambda a, i, d: np.take_along_axis(a, i, 1),
    ),
    Case("gather_nd", [X, ints(0, 2, 0, -1).reshape(2, 2)], lambda a, i: a[tuple(i.T)], at_once=False),
    Case("gather_nd", [X, ints(0, 1, 0, -1).reshape(1, 2, 2)], lambda a, i: a[tuple(np.moveaxis(i, -1, 0))]),
    Case("scatter_nd", [X, ints(0, 1, 0, -1).reshape(2, 2), x(2, 4).array[0]], lambda *a: _put(*a), at_once=False),
    Case("scatter_along_axis", [X, Given(ints(2, 0, 1, -1).reshape(1, 1, 4)), x(1, 4), ints(1)[0]], _scattered),
    *(Case("pad", [X, _PADDING, np.float32(1.5)], _padded(mode), {"padding_mode": mode}) for mode in _MODES),
    Case("pad", [X, ints(1, 0, 0, 1, 0, 0), np.float32(0)], _padded("symmetric"), {"padding_mode": "symmetric"}, False),
    Case("slice", [X, ints(0, 1, -3), ints(1, 3, 4), ints(1, 1, 2)], lambda a, *_: a[:, 1:3, -3:4:2]),
    Case("slice", [X, ints(0, 2, 3), ints(1, -1, 0), ints(1, -1, -2)], lambda a, *_: a[:, ::-1][..., 3:0:-2]),
    Case("slice_update", [X, ints(0, 1, 0), ints(1, 3, 4), ints(1, 1, 2), x(2, 2)], _updated),
    Case("slice_update", [X, ints(0, 0, 1), ints(1, 3, 2), ints(1, 1, 1), np.zeros((1, 3, 1), np.float32)], _updated),
]

LAYERS = [
    Case("gelu", [X], _gelu("none"), {"approximate": "none"}),
    Case("gelu", [X], _gelu("tanh"), {"approximate": "tanh"}),
    Case("gelu", [X], lambda a: a * scipy.special.expit(1.702 * a), {"approximate": "sigmoid"}),
    Case("conv2d", [IMAGE, x(4, 2, 3, 2).array[0], _STRIDES, _DILATIONS, 1], _conv(2)),
    Case("conv2d", [IMAGE, x(4, 1, 3, 2).array[0], _STRIDES, ints(1, 1), 2], _conv(2)),
    Case("conv3d", [x(2, 4, 5, 4), x(3, 2, 2, 2, 2).array[0], ints(1, 2, 1), ints(2, 1, 1), 1], _conv(3)),
    Case(
        "conv_transpose2d",
        [IMAGE, x(2, 3, 3, 2).array[0], _STRIDES, ints(1, 0), _DILATIONS, ints(1, 0), 1],
        _conv_transpose(2),
    ),
    Case(
        "conv_transpose3d",
        [x(2, 3, 3, 2), x(2, 2, 2, 2, 2).array[0], ints(2, 1, 1), ints(0, 0, 1), ints(1, 1, 1), ints(0, 0, 0), 2],
        _conv_transpose(3),
    ),
    Case("max_pool_2d", [IMAGE, _KERNEL, _STRIDES, _DILATIONS, np.array(False)], _windows(np.max)),
    Case("max_pool_2d", [IMAGE, ints(3, 3), ints(2, 2), ints(1, 1), np.array(True)], _windows(np.max)),
    Case("max_pool_3d", [x(2, 4, 4, 5), ints(2, 2, 2), ints(2, 1, 2), ints(1, 1, 1), np.array(True)], _windows(np.max)),
    Case("sum_pool_2d", [IMAGE, _KERNEL, _STRIDES, ints(1, 1)], _windows(np.sum)),
    Case("sum_pool_2d", [IMAGE, _KERNEL, _STRIDES, _DILATIONS], _windows(np.sum)),
    Case("sum_pool_2d", [whole(2, 5, 6), _KERNEL, _STRIDES, _DILATIONS], _windows(np.sum)),
    Case("sum_pool_3d", [x(2, 4, 4, 5), ints(2, 2, 2), ints(2, 1, 2), ints(1, 2, 1)], _windows(np.sum)),
    Case(
        "interpolate",
        [IMAGE, ints(1, 2, 10, 4), np.array([1, 1, 10 / 7, 4 / 6], np.float32), np.zeros(4, np.float32)],
        _interpolated,
        {"interpolation_mode": "linear"},
    ),
    *(
        Case(
            "interpolate_coordinates",
            [Given(x(4, 5).array[0]), Given(np.array([[0.25, 1.5], [9, -1], [2.5, 3.5], [1, 4]], np.float32))],
            _sampled(mode),
            {"interpolation_mode": mode},
            at_once=False,
        )
        for mode in ("linear", "nearest_neighbor")
    ),
    Case("dequantize", [N, np.float32(0.5), ints(3)[0], np.float32(1), ints(0, 1, 2)], _dequantized),
    Case("dequantize", [N, _BLOCKS[0], ints(1, 2, 3), _BLOCKS[1], ints(1)[0]], _dequantized),
    Case("quantize", [X, np.float32(0.03), ints(3)[0].astype(np.int8), np.float32(1), ints(0, 1, 2)], _quantized),
    Case("quantize", [X, _BLOCKS[0], ints(1, 2, 3).astype(np.int8), _BLOCKS[1], ints(1)[0]], _quantized),
    Case(
        "blockwise_shift_scale",
        [np.arange(24, dtype=np.int8).reshape(4, 6), _BLOCKS, np.ones((2, 3), np.int8), _BLOCKS],
        lambda a, s, o, p: np.kron(s, np.ones((2, 2))) * (a - 1.0) + np.kron(p, np.ones((2, 2))),
        at_once=False,
    ),
]


def _put(a: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    result = a.copy()
    result[tuple(indices.T)] = updates
    return result


CASES = [
    *(Case(name, [a], expected) for name, a, expected in UNARY),
    *(Case(name, [a, b], expected) for name, a, b, expected in BINARY),
    *(
        Case(name, [a, axes], lambda a, axes, f=f: f(a, axis=tuple(axes), keepdims=True))
        for name, (a, f) in REDUCTIONS.items()
        for axes in _AXES
    ),
    *MOVES,
    *LAYERS,
]
