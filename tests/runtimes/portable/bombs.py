"""Packages of a few kilobytes, a few megabytes at most, that ask for hours or for all memory, each in its own way.

Written by `assemble`, as no converter writes such programs. By what asks: the translation, constants, a prediction.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.assembly import Inner, Shape, Writer, assemble, weight_file

X = {"x": (4,)}
BIG = 2_000_000_000
Bomb = Callable[[Path], Path]


def _program(write: Callable[[Writer], Sequence[str]], weights: bytes = b"", inputs: dict | None = None) -> Bomb:
    return lambda path: assemble(path, inputs or X, write, weights=weights)


def _one(type_: str, shape: Shape, dtype: str = "fp32", /, **inputs: object) -> Bomb:
    """One operation, and its largest element."""

    def write(w: Writer) -> list[str]:
        w(type_, "made", shape, dtype, **inputs)
        return [_sum(w, "made", len(shape), dtype)]

    return _program(write)


def _sum(w: Writer, name: str, rank: int, dtype: str = "fp32") -> str:
    made = _most(w, name, rank, dtype)
    return w("add", "y", (4,), x="x", y=made if dtype == "fp32" else w("cast", "float", (), x=made, dtype=("fp32",)))


def _most(w: Writer, name: str, rank: int, dtype: str = "fp32") -> str:
    return w("reduce_max", f"most_of_{name}", (), dtype, x=name, axes=np.arange(rank), keep_dims=False)


def _most_of_x(w: Writer) -> str:
    return _most(w, "x", 1)


def _row_and_column(w: Writer, size: int) -> tuple[str, str]:
    row = w("expand_dims", "row", (1, size), x="x", axes=np.array([0]))
    return row, w("expand_dims", "column", (size, 1), x="x", axes=np.array([1]))


def _image_of_x(w: Writer) -> str:
    return w("expand_dims", "image", (1, 1, 1, 4), x="x", axes=np.array([0, 1, 2]))


# --- the translation


def loop(w: Writer, x: str, level: int, place: str, shape: Shape = ()) -> str:
    """A loop in the condition, or the body, of the next one, `level` times; adds 1 until something is 3."""
    value = f"v{level}"

    def inner(w: Writer, where: str) -> str:
        return loop(w, value, level - 1, place, shape) if level and place == where else value

    def condition(w: Writer) -> list[str]:
        return [w("less", f"less{level}", (), "bool", x=inner(w, "condition"), y=3.0)]

    def body(w: Writer) -> list[str]:
        return [w("add", f"add{level}", shape, x=inner(w, "body"), y=1.0)]

    arguments = [(value, "fp32", shape)]
    return w("while_loop", f"loop{level}", shape, loop_vars=x, blocks=[(arguments, condition), (arguments, body)])


def _nested(levels: int, place: str) -> Bomb:
    return _program(lambda w: [loop(w, _most_of_x(w), levels, place)])


def _growing(w: Writer, x: str, level: int) -> str:
    """A loop in the body of the next one; each makes its value longer, so that every level is written anew."""
    value, count = f"v{level}", f"n{level}"

    def body(w: Writer) -> list[str]:
        inner = _growing(w, value, level - 1) if level else value
        longer = w("concat", f"longer{level}", (None,), values=[inner, inner], axis=0)
        return [w("add", f"next{level}", (), "int32", x=count, y=1), longer]

    arguments: list[tuple[str, str, Shape]] = [(count, "int32", ()), (value, "fp32", (4,))]
    blocks: list[Inner] = [
        (arguments, lambda w: [w("less", f"more{level}", (), "bool", x=count, y=0)]),
        (arguments, body),
    ]
    outputs: list[tuple[str, str, Shape]] = [(f"count{level}", "int32", ()), (f"value{level}", "fp32", (None,))]
    w.several("while_loop", outputs, loop_vars=[0, x], blocks=blocks)
    return f"value{level}"


def _chain_of_sizes(values: int) -> Bomb:
    """Each value of a loop becomes as long as the one before it: one size more is open after every round."""

    def write(w: Writer) -> list[str]:
        arguments: list[tuple[str, str, Shape]] = [
            ("n", "int32", ()),
            *((f"v{i}", "fp32", (4,)) for i in range(values)),
        ]

        def body(w: Writer) -> list[str]:
            first = w("concat", "longer", (None,), values=["v0", "v0"], axis=0)
            return [w("add", "m", (), "int32", x="n", y=1), first, *(f"v{i}" for i in range(values - 1))]

        blocks: list[Inner] = [(arguments, lambda w: [w("less", "more", (), "bool", x="n", y=0)]), (arguments, body)]
        outputs: list[tuple[str, str, Shape]] = [
            ("m1", "int32", ()),
            *((f"r{i}", "fp32", (None,)) for i in range(values)),
        ]
        w.several("while_loop", outputs, loop_vars=[0, *["x"] * values], blocks=blocks)
        return ["r0"]

    return _program(write)


def _branches(w: Writer, level: int) -> str:
    """A branch in a branch of the next one."""
    w("greater", f"flag{level}", (), "bool", x="most_of_x", y=float(level))

    def then(w: Writer) -> list[str]:
        return [_branches(w, level - 1) if level else w("relu", "end", (4,), x="x")]

    blocks: list[Inner] = [([], then), ([], lambda w: [w("abs", f"abs{level}", (4,), x="x")])]
    return w("cond", f"cond{level}", (4,), pred=f"flag{level}", blocks=blocks)


def _branches_of_x(w: Writer) -> list[str]:
    _most_of_x(w)
    return [_branches(w, 25)]


def _many(count: int, type_: str = "relu") -> Bomb:
    def write(w: Writer) -> list[str]:
        value = "x"
        for i in range(count):
            value = w(type_, f"r{i}", (4,), x=value)
        return [value]

    return _program(write)


def _many_folded(count: int, elements: int) -> Bomb:
    def write(w: Writer) -> list[str]:
        value = w("fill", "c", (elements,), shape=np.array([elements]), value=1.0)
        for i in range(count):
            value = w("add", f"c{i}", (elements,), x=value, y=1.0)
        return [_sum(w, value, 1)]

    return _program(write)


def _blocks_and_names(count: int) -> Bomb:
    """Half are names, half are blocks that could each look at all of them."""

    def write(w: Writer) -> list[str]:
        _most_of_x(w)

        def inside(w: Writer) -> list[str]:
            for i in range(count):
                w("relu", f"r{i}", (4,), x="x")
            for i in range(count):
                w("cond", f"c{i}", (4,), pred="flag", blocks=[([], lambda w, i=i: [f"r{i}"]), ([], lambda w: ["x"])])
            return [f"c{count - 1}"]

        w("greater", "flag", (), "bool", x="most_of_x", y=0.0)
        return [w("cond", "y", (4,), pred="flag", blocks=[([], inside), ([], lambda w: ["x"])])]

    return _program(write)


# --- constants

_SHARED = weight_file(np.zeros(1 << 18, np.uint8), 9)  # 2 million elements of a bit
_FLOATS = weight_file(np.zeros(1 << 20, np.float16), 1)


def _shared_weights(count: int) -> Bomb:
    def write(w: Writer) -> list[str]:
        y = "x"
        for i in range(count):
            weight = w.stored(f"weight{i}", (1 << 18, 4), "fp16", 64)
            y = w(
                "add",
                f"y{i}",
                (4,),
                x=y,
                y=_most(w, weight, 2),
            )
        return [y]

    return _program(write, _FLOATS)


def _shared_masks(count: int) -> Bomb:
    """A sparse weight without an element: a bit each, and four bytes once it is dense."""

    def write(w: Writer) -> list[str]:
        y = "x"
        mask = w.stored("mask", (1 << 21,), "uint1", 64)
        for i in range(count):
            dense = w(
                "constexpr_sparse_to_dense", f"dense{i}", (1 << 21,), nonzero_data=np.zeros(0, np.float32), mask=mask
            )
            y = w(
                "add",
                f"y{i}",
                (4,),
                x=y,
                y=_most(w, dense, 1),
            )
        return [y]

    return _program(write, _SHARED)


def _vectors(path: Path) -> Path:
    """Two million indices of a bit into two vectors of 65,536 elements."""

    def write(w: Writer) -> list[str]:
        indices = w.stored("indices", (1 << 21,), "uint1", 64)
        lut = np.zeros((1, 2, 1 << 16), np.float32)
        dense = w("constexpr_lut_to_dense", "dense", (1 << 21,), indices=indices, lut=lut, vector_axis=0)
        return [_sum(w, dense, 1)]

    return assemble(path, X, write, weights=_SHARED)


def _chained(count: int) -> Bomb:
    """Tables that are made of tables: each weight is a chain of all before it."""

    def write(w: Writer) -> list[str]:
        value: object = np.zeros(1, np.float32)
        for i in range(count):
            value = w("constexpr_blockwise_shift_scale", f"w{i}", (1,), data=value, scale=np.ones(1, np.float32))
        return [_sum(w, str(value), 1)]

    return _program(write)


def _heavy(type_: str, shape: Shape, size: int, /, **inputs: object) -> Bomb:
    """Constants of a few megabytes that take hours to be computed with."""

    def write(w: Writer) -> list[str]:
        filled = w("fill", "filled", (1, 1, size, size), shape=np.array([1, 1, size, size]), value=1.0)
        named = {name: filled if isinstance(given, str) else given for name, given in inputs.items()}
        w(type_, "made", shape, **named)
        return [_sum(w, "made", len(shape))]

    return _program(write)


def _fills_like(count: int) -> Bomb:
    def write(w: Writer) -> list[str]:
        y = "x"
        image = _image_of_x(w)
        large = w(
            "upsample_nearest_neighbor",
            "large",
            (1, 1, 4096, 4096),
            x=image,
            scale_factor_height=4096,
            scale_factor_width=1024,
        )
        for i in range(count):
            made = w("fill_like", f"made{i}", (1, 1, 4096, 4096), ref_tensor=large, value=1.0)
            y = w("add", f"y{i}", (4,), x=y, y=_most(w, made, 4))
        return [y]

    return _program(write)


# --- a prediction


def _size_of_x(w: Writer, factor: float) -> str:
    """A size that is known once x is: what is asked for, where x is ones."""
    scaled = w("mul", "scaled", (), x=_most_of_x(w), y=factor)
    whole = w("cast", "whole", (), "int32", x=scaled, dtype=("int32",))
    return w("expand_dims", "size", (1,), "int32", x=whole, axes=np.array([0]))


def _at_run_time(type_: str, shape: Shape, size: str, dtype: str = "fp32", /, **inputs: object) -> Bomb:
    def write(w: Writer) -> list[str]:
        w(type_, "made", shape, dtype, **{size: _size_of_x(w, float(BIG)), **inputs})
        return [_sum(w, "made", len(shape), dtype)]

    return _program(write)


def _range_at_run_time(path: Path) -> Path:
    def write(w: Writer) -> list[str]:
        end = w("mul", "end", (), x=_most_of_x(w), y=float(BIG))
        w("range_1d", "made", (None,), start=0.0, end=end, step=1.0)
        return [_sum(w, "made", 1)]

    return assemble(path, X, write)


def _doubling(returned: bool) -> Bomb:
    """A loop that makes its value twice as long in each round, for ever."""

    def write(w: Writer) -> list[str]:
        most = _most_of_x(w)
        arguments: list[tuple[str, str, Shape]] = [("v", "fp32", (None,))]
        blocks: list[Inner] = [
            (arguments, lambda w: [w("greater", "go", (), "bool", x=most, y=0.0)]),
            (arguments, lambda w: [w("concat", "vv", (None,), values=["v", "v"], axis=0)]),
        ]
        w("while_loop", "made", (None,), loop_vars="x", blocks=blocks)
        return ["made"] if returned else [_sum(w, "made", 1)]

    return _program(write)


def _endless(*, calls: int) -> Bomb:
    def write(w: Writer) -> list[str]:
        most = _most_of_x(w)
        arguments: list[tuple[str, str, Shape]] = [("v", "fp32", ())]

        def body(w: Writer) -> list[str]:
            value = "v"
            for i in range(calls):
                value = w("mul", f"b{i}", (), x=value, y=1.0)
            return [value]

        blocks: list[Inner] = [(arguments, lambda w: [w("less", "go", (), "bool", x="v", y=1e30)]), (arguments, body)]
        return [w("while_loop", "y", (), loop_vars=most, blocks=blocks)]

    return _program(write)


def _broadcast(path: Path) -> Path:
    def write(w: Writer) -> list[str]:
        row, column = _row_and_column(w, 40_000)
        return [_most(w, w("add", "made", (40_000, 40_000), x=row, y=column), 2)]

    return assemble(path, {"x": (40_000,)}, write)


def _images(type_: str, shape: Shape, /, **inputs: object) -> Bomb:
    def write(w: Writer) -> list[str]:
        image = _image_of_x(w)
        w(type_, "made", shape, x=image, **inputs)
        return [_sum(w, "made", len(shape))]

    return _program(write)


def _large_product(path: Path) -> Path:
    """Minutes in a few operations, of which nothing but the end of the process ends one."""

    def write(w: Writer) -> list[str]:
        row, column = _row_and_column(w, 6_000)
        value = w("add", "square", (6_000, 6_000), x=row, y=column)
        for i in range(40):
            value = w("matmul", f"p{i}", (6_000, 6_000), x=value, y="square", transpose_x=False, transpose_y=False)
        return [_most(w, value, 2)]

    return assemble(path, {"x": (6_000,)}, write)


_LIKE_PADS = {"mode": ("constant",), "constant_val": 0.0}
_LIKE_HOTS = {"one_hot_vector_size": BIG, "axis": -1, "on_value": 1, "off_value": 0}
_WINDOWS = {
    "kernel_sizes": np.array([2000, 2000]),
    "strides": np.array([1, 1]),
    "pad_type": ("valid",),
    "exclude_padding_from_average": False,
    "ceil_mode": False,
}
_AS_IT_IS = {"transpose_x": False, "transpose_y": False}
_WARP = {
    "transform_matrix": np.ones((1, 6), np.float32),
    "output_height": 20_000,
    "output_width": 20_000,
    "sampling_mode": ("bilinear",),
    "padding_mode": ("constant",),
    "padding_value": 0.0,
    "coordinates_mode": ("normalized_minus_one_to_one",),
    "align_corners": True,
}
_RESIZE = {"target_size_height": 30_000, "target_size_width": 30_000, "sampling_mode": ("DEFAULT",)}
_ONES = np.ones(4, np.float32)
_KERNEL = np.ones((1, 1, 2000, 2000), np.float32)

BOMBS: dict[str, Bomb] = {
    "loops in conditions": _nested(25, "condition"),
    "loops in bodies": _nested(13, "body"),
    "loops in bodies that grow": _program(lambda w: [_growing(w, "x", 12)]),
    "a chain of sizes": _chain_of_sizes(2_000),
    "branches in branches": _program(_branches_of_x),
    "many operations": _many(90_000),
    "more operations than are read": _many(110_000),
    "many small constants": _many_folded(20_000, 1),
    "many large constants": _many_folded(2_000, 1 << 20),
    "blocks and names": _blocks_and_names(10_000),
    "a weight, often": _shared_weights(5_000),
    "a mask, often": _shared_masks(5_000),
    "a table of vectors": _vectors,
    "tables of tables": _chained(10_000),
    "a constant that is filled": _one("fill", (BIG,), shape=np.array([BIG]), value=1.0),
    "a constant that is tiled": _one("tile", (None,), x=_ONES, reps=np.array([BIG])),
    "a constant that is counted": _one("range_1d", (None,), start=0.0, end=float(BIG), step=1.0),
    "a constant that is padded": _one("pad", (None,), x=_ONES, pad=np.array([BIG, 0]), **_LIKE_PADS),
    "a constant that is one hot": _one("one_hot", (4, None), "int32", indices=np.arange(4), **_LIKE_HOTS),
    "constants like a value": _fills_like(64),
    "constants that are convolved": _heavy("conv", (1, 1, 2001, 2001), 4000, x="filled", weight=_KERNEL),
    "constants that are multiplied": _heavy("matmul", (1, 1, 6000, 6000), 6000, x="filled", y="filled", **_AS_IT_IS),
    "constants that are pooled": _heavy("avg_pool", (1, 1, 2001, 2001), 4000, x="filled", **_WINDOWS),
    "values that are filled": _at_run_time("fill", (None,), "shape", value=1.0),
    "values that are tiled": _at_run_time("tile", (None,), "reps", x="x"),
    "values that are counted": _range_at_run_time,
    "values that double": _doubling(returned=False),
    "values that double and are returned": _doubling(returned=True),
    "values that are broadcast": _broadcast,
    "values that are enlarged": _images(
        "upsample_nearest_neighbor", (1, 1, 20_000, 80_000), scale_factor_height=20_000, scale_factor_width=20_000
    ),
    "values that are resized": _images("resize_bilinear", (1, 1, 30_000, 30_000), **_RESIZE),
    "values that are warped": _images("affine", (1, 1, 20_000, 20_000), **_WARP),
    "an endless loop": _endless(calls=1),
    "an endless loop of many": _endless(calls=500),
    "a large product": _large_product,
}
