"""Operations that move, choose and fill, against NumPy and torch; and networks that reshape across the batch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
import torchvision
from coremltools.converters.mil import Builder as mb
from torch import nn

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.runtimes.portable import load
from tests.runtimes.packages import from_mil, from_torch

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (2, 3, 4)).astype(np.float32)
X[0, 0] = [1.0, 0.0, 1.0, -1.0]  # ties, and a zero
IMAGE = RNG.normal(0, 1, (2, 8, 4, 6)).astype(np.float32)

Case = tuple[Callable[..., Any], Callable[[np.ndarray], np.ndarray]]


def identity(x: np.ndarray) -> np.ndarray:
    return x


def results(
    path: Path, build: Callable[..., Any], inputs: Mapping[str, np.ndarray], **options: Any
) -> list[np.ndarray]:
    """What the outputs of `build`, a function of inputs of these names, are: Float32 or integers."""
    from_mil(path, build, *(value.shape for value in inputs.values()), **options)
    model = load(path, threads=1)
    predicted = model.predict(inputs)
    return [predicted[name] for name in model.output_names]


def check(path: Path, cases: Mapping[str, Case], x: np.ndarray, **options: Any) -> None:
    """All cases in one program, which is quicker than a program for each."""

    def build(x: Any) -> Any:
        return [case(x) for case, _ in cases.values()]

    for (name, (_, expected)), got in zip(cases.items(), results(path, build, {"x": x}, **options), strict=True):
        want = expected(x)
        assert got.shape == want.shape, name
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=name)


SHAPES: dict[str, Case] = {
    "reshape": (lambda x: mb.reshape(x=x, shape=[4, -1]), lambda x: x.reshape(4, 6)),
    "reshape-zeros": (lambda x: mb.reshape(x=x, shape=[0, 2, -1]), lambda x: x.reshape(2, 2, 6)),
    "reshape-zeros_from_right": (lambda x: mb.reshape(x=x, shape=[0, -1, 0, 1, 0]), lambda x: x.reshape(1, 3, 2, 1, 4)),
    "reshape_like": (
        lambda x: mb.reshape_like(
            x=x,
            ref_tensors=(mb.transpose(x=x, perm=[2, 1, 0]), mb.expand_dims(x=x, axes=[0])),
            begins=(0, 1),
            ends=(-1, 2),
            end_masks=(False, False),
        ),
        lambda x: x.reshape(4, 3, 2),
    ),
    "expand_dims": (lambda x: mb.expand_dims(x=x, axes=[-1, 2]), lambda x: x.reshape(2, 3, 1, 4, 1)),
    "squeeze": (
        lambda x: mb.squeeze(x=mb.expand_dims(x=x, axes=[0, 2])),
        identity,
    ),
    "squeeze-some": (
        lambda x: mb.squeeze(x=mb.expand_dims(x=x, axes=[0, 2]), axes=[-3, 1]),
        lambda x: x.reshape(1, 2, 3, 4),
    ),
    "flatten2d": (lambda x: mb.flatten2d(x=x), lambda x: x.reshape(2, 12)),
    "flatten2d-negative": (lambda x: mb.flatten2d(x=x, axis=-1), lambda x: x.reshape(6, 4)),
    "flatten2d-first": (lambda x: mb.flatten2d(x=x, axis=0), lambda x: x.reshape(1, 24)),
    "transpose": (lambda x: mb.transpose(x=x, perm=[-1, 0, 1]), lambda x: x.transpose(2, 0, 1)),
    "shape": (lambda x: mb.add(x=mb.shape(x=x), y=0), lambda x: np.array(x.shape)),
    "reverse": (lambda x: mb.reverse(x=x), lambda x: x[::-1, ::-1, ::-1]),
    "reverse-some": (lambda x: mb.reverse(x=x, axes=[-1, 0]), lambda x: x[::-1, :, ::-1]),
    "tile": (lambda x: mb.tile(x=x, reps=[2, 1, 3]), lambda x: np.tile(x, (2, 1, 3))),
    "tile-once": (lambda x: mb.tile(x=x, reps=[1, 1, 1]), identity),
}

JOINING: dict[str, Case] = {
    "concat": (lambda x: mb.concat(values=[x, x], axis=-1), lambda x: np.concatenate([x, x], -1)),
    "concat-constant": (
        lambda x: mb.concat(values=[x, np.ones((2, 1, 4), np.float32)], axis=1),
        lambda x: np.concatenate([x, np.ones((2, 1, 4))], 1),
    ),
    "concat-interleave": (
        lambda x: mb.concat(values=[x, mb.mul(x=x, y=2.0), mb.mul(x=x, y=3.0)], axis=1, interleave=True),
        lambda x: np.stack([x, x * 2, x * 3], 2).reshape(2, 9, 4),
    ),
    "concat-scalars": (
        lambda x: mb.concat(values=[mb.reduce_max(x=x, axes=[0, 1, 2], keep_dims=False), np.float32(7)], axis=0),
        lambda x: np.array([x.max(), 7]),
    ),
    "stack": (lambda x: mb.stack(values=[x, mb.mul(x=x, y=-1.0)], axis=-2), lambda x: np.stack([x, -x], -2)),
    "split": (lambda x: mb.split(x=x, num_splits=2, axis=-1)[1], lambda x: x[..., 2:]),
    "split-sizes": (lambda x: mb.split(x=x, split_sizes=[1, 2], axis=1)[1], lambda x: x[:, 1:]),
    "split-first": (lambda x: mb.split(x=x, split_sizes=[1, 1], axis=0)[1], lambda x: x[1:]),
}

PADDING: dict[str, Case] = {
    "pad": (lambda x: mb.pad(x=x, pad=[1, 0, 2, 1]), lambda x: np.pad(x, [(0, 0), (1, 0), (2, 1)])),
    "pad-value": (
        lambda x: mb.pad(x=x, pad=[0, 1, 0, 0, 2, 1], constant_val=-1.5),
        lambda x: np.pad(x, [(0, 1), (0, 0), (2, 1)], constant_values=-1.5),
    ),
    "pad-reflect": (
        lambda x: mb.pad(x=x, pad=[2, 1, 1, 3], mode="reflect"),
        lambda x: np.pad(x, [(0, 0), (2, 1), (1, 3)], "reflect"),
    ),
    "pad-replicate": (
        lambda x: mb.pad(x=x, pad=[3, 0, 1, 4], mode="replicate"),
        lambda x: np.pad(x, [(0, 0), (3, 0), (1, 4)], "edge"),
    ),
    "pad-nothing": (lambda x: mb.pad(x=x, pad=[0, 0]), identity),
}


def band(x: np.ndarray, lower: int, upper: int) -> np.ndarray:
    m, n = np.indices(x.shape[-2:])
    return x * (((m - n <= lower) | (lower < 0)) & ((n - m <= upper) | (upper < 0)))


FILLING: dict[str, Case] = {
    "fill": (lambda x: mb.add(x=x, y=mb.fill(shape=[3, 1], value=2.5)), lambda x: x + 2.5),
    "fill-default": (lambda x: mb.add(x=x, y=mb.fill(shape=[3, 1])), identity),
    "fill_like": (lambda x: mb.fill_like(ref_tensor=x, value=3), lambda x: np.full(x.shape, 3)),
    "range_1d": (
        lambda x: mb.add(x=x, y=mb.range_1d(start=1.0, end=2.0, step=0.25)),
        lambda x: x + np.arange(1, 2, 0.25),
    ),
    "range_1d-integers": (
        lambda x: mb.add(x=mb.range_1d(start=9, end=2, step=-3), y=mb.const(val=np.int32(0))),
        lambda x: np.arange(9, 2, -3),
    ),
    "band_part": (lambda x: mb.band_part(x=x, lower=0, upper=1), lambda x: band(x, 0, 1)),
    "band_part-lower": (lambda x: mb.band_part(x=x, lower=-1, upper=0), lambda x: band(x, -1, 0)),
    "band_part-upper": (lambda x: mb.band_part(x=x, lower=1), lambda x: band(x, 1, -1)),
    "band_part-all": (lambda x: mb.band_part(x=x), identity),
    "cumsum": (lambda x: mb.cumsum(x=x), lambda x: x.cumsum(0)),
    "cumsum-reverse": (
        lambda x: mb.cumsum(x=x, axis=-1, reverse=True),
        lambda x: x[..., ::-1].cumsum(-1)[..., ::-1],
    ),
    "cumsum-exclusive": (
        lambda x: mb.cumsum(x=x, axis=1, exclusive=True),
        lambda x: np.pad(x.cumsum(1), [(0, 0), (1, 0), (0, 0)])[:, :-1],
    ),
}


def order(x: np.ndarray, axis: int = -1, *, ascending: bool = False) -> np.ndarray:
    return np.argsort(x if ascending else -x, axis, kind="stable")


CHOOSING: dict[str, Case] = {
    "select": (
        lambda x: mb.select(cond=mb.greater(x=x, y=0.0), a=x, b=np.full((3, 1), 5, np.float32)),
        lambda x: np.where(x > 0, x, 5),
    ),
    "select-flags": (
        lambda x: mb.cast(
            x=mb.select(cond=mb.greater(x=x, y=0.0), a=mb.less(x=x, y=1.0), b=mb.less(x=x, y=-1.0)), dtype="int32"
        ),
        lambda x: np.where(x > 0, x < 1, x < -1),
    ),
    "non_zero": (lambda x: mb.non_zero(x=x), lambda x: np.argwhere(x)),
    "topk": (lambda x: mb.topk(x=x, k=2)[0], lambda x: -np.sort(-x)[..., :2]),
    "topk-indices": (lambda x: mb.topk(x=x, k=3, axis=-1)[1], lambda x: order(x)[..., :3]),
    "topk-ascending": (
        lambda x: mb.topk(x=x, k=2, axis=1, ascending=True, sort=False, return_indices=False),
        lambda x: np.sort(x, 1)[:, :2],
    ),
    "topk-all": (
        lambda x: mb.cast(x=mb.topk(x=x, k=3, axis=-2, output_indices_dtype="uint16")[1], dtype="int32"),
        lambda x: order(x, -2),
    ),
    "argsort": (lambda x: mb.argsort(x=x), order),
    "argsort-ascending": (lambda x: mb.argsort(x=x, axis=0, ascending=True), lambda x: order(x, 0, ascending=True)),
}

FAMILIES = {"shapes": SHAPES, "joining": JOINING, "padding": PADDING, "filling": FILLING, "choosing": CHOOSING}


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, tmp_path: Path) -> None:
    check(tmp_path / "m.mlpackage", FAMILIES[family], X)


# --- slices

Parts = tuple[slice | int, ...]
SLICES: list[Parts] = [
    np.s_[0:1, 1:3, 1:2],
    np.s_[:, :, :],
    np.s_[:, -2:, ::2],
    np.s_[-1:, 0:-1, -3:-1],
    np.s_[::-1, ::-2, 3:0:-2],
    np.s_[1, :, :],
    np.s_[:, -1, :],
    np.s_[:, 1, -1],
    np.s_[:, -3, 1:100],
    np.s_[-1::-1, :1:-1, -2::-1],
    np.s_[:, 2:2, :],
]


def bounds(parts: Parts) -> dict[str, Any]:
    """The arguments of slice_by_index that mean these slices."""
    whole = [slice(part, 0) if isinstance(part, int) else part for part in parts]
    return {
        "begin": [part.start or 0 for part in whole],
        "end": [part.stop or 0 for part in whole],
        "stride": [part.step or 1 for part in whole],
        "begin_mask": [part.start is None for part in whole],
        "end_mask": [part.stop is None for part in whole],
        "squeeze_mask": [isinstance(part, int) for part in parts],
    }


def test_slice_by_index(tmp_path: Path) -> None:
    def case(parts: Parts) -> Case:
        return lambda x: mb.slice_by_index(x=x, **bounds(parts)), lambda x: x[parts]

    check(tmp_path / "m.mlpackage", {str(parts): case(parts) for parts in SLICES}, X)


def updated(x: np.ndarray, parts: Parts) -> np.ndarray:
    result = x.copy()
    result[parts] = UPDATE[parts]
    return result


UPDATE = RNG.normal(0, 1, X.shape).astype(np.float32)
UPDATES = [parts for parts in SLICES if X[parts].size]


def test_slice_update(tmp_path: Path) -> None:
    def case(parts: Parts) -> Case:
        return lambda x: mb.slice_update(x=x, update=UPDATE[parts], **bounds(parts)), lambda x: updated(x, parts)

    check(tmp_path / "m.mlpackage", {str(parts): case(parts) for parts in UPDATES}, X, opset=ct.target.iOS18)


def test_bounds_that_only_running_tells(tmp_path: Path) -> None:
    table = np.array([bounds(parts)["begin"] + bounds(parts)["end"] for parts in UPDATES], np.float32)

    def build(x: Any, table: Any) -> list[Any]:
        numbers = mb.split(x=mb.cast(x=table, dtype="int32"), num_splits=len(UPDATES), axis=0)
        values = []
        for parts, row in zip(UPDATES, numbers, strict=True):
            begin, end = mb.split(x=mb.squeeze(x=row, axes=[0]), num_splits=2, axis=0)
            arguments = bounds(parts) | {"begin": begin, "end": end}
            values.append(mb.slice_by_index(x=x, **arguments))
            values.append(mb.slice_update(x=x, update=UPDATE[parts], **arguments))
        return values

    got = results(tmp_path / "m.mlpackage", build, {"x": X, "table": table}, opset=ct.target.iOS18)
    for parts, slice_, update in zip(UPDATES, got[::2], got[1::2], strict=True):
        np.testing.assert_array_equal(slice_, X[parts], err_msg=str(parts))
        np.testing.assert_array_equal(update, updated(X, parts), err_msg=str(parts))


SLICING: dict[str, Case] = {
    "slice_by_size": (lambda x: mb.slice_by_size(x=x, begin=[1, 0, -3], size=[-1, 2, 2]), lambda x: x[1:, :2, 1:3]),
    "slice_by_size-all": (lambda x: mb.slice_by_size(x=x, begin=[0, 0, 0], size=[-1, 3, -1]), identity),
    "crop": (lambda x: mb.crop(x=x, crop_height=[1, 0], crop_width=[0, 2]), lambda x: x[:, 1:, :-2]),
    "sliding_windows": (
        lambda x: mb.sliding_windows(x=x, axis=-1, size=2),
        lambda x: np.stack([x[..., :2], x[..., 1:3], x[..., 2:]], -2),
    ),
    "sliding_windows-stride": (
        lambda x: mb.sliding_windows(x=x, axis=1, size=1, stride=2),
        lambda x: x[:, ::2][:, :, np.newaxis],
    ),
}


def test_slicing(tmp_path: Path) -> None:
    check(tmp_path / "m.mlpackage", SLICING, X)


# --- arguments that are constants elsewhere

NUMBERS = [0.0, 1.0, 2.0, 3.0, -1.0, 2.1]


def test_arguments_that_only_running_tells(tmp_path: Path) -> None:
    def build(x: Any, numbers: Any) -> list[Any]:
        def real(number: float) -> Any:
            return mb.squeeze(x=mb.gather(x=numbers, indices=[NUMBERS.index(number)]))

        def integer(number: int) -> Any:
            return mb.cast(x=real(number), dtype="int32")

        def vector(*values: int) -> Any:
            return mb.stack(values=[integer(value) for value in values], axis=0)

        return [
            mb.reshape(x=x, shape=vector(3, -1, 2)),
            mb.reshape(x=x, shape=vector(0, 2, -1, 3, 0)),
            mb.tile(x=x, reps=vector(2, 1, 2)),
            mb.pad(x=x, pad=vector(0, 1, 2, 0, 1, 1), mode="replicate"),
            mb.slice_by_size(x=x, begin=vector(-1, 0, 2), size=vector(1, 2, -1)),
            mb.fill(shape=vector(1, 3), value=2.0),
            mb.range_1d(start=integer(3), end=integer(0), step=integer(-1)),
            mb.range_1d(start=1.0, end=real(2.1), step=0.25),
            mb.one_hot(indices=vector(2, -1, 0), one_hot_vector_size=integer(3)),
            mb.select(cond=mb.greater(x=x, y=real(0.0)), a=x, b=real(2.1)),
        ]

    expected = [
        X.reshape(3, 4, 2),
        X.reshape(1, 2, 1, 3, 4),
        np.tile(X, (2, 1, 2)),
        np.pad(X, [(0, 1), (2, 0), (1, 1)], "edge"),
        X[1:, 0:2, 2:],
        np.full((1, 3), 2),
        np.arange(3, 0, -1),
        np.arange(1, 2.1, 0.25),
        np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]]),
        np.where(X > 0, X, np.float32(2.1)),
    ]
    inputs = {"x": X, "numbers": np.array(NUMBERS, np.float32)}
    for got, want in zip(results(tmp_path / "m.mlpackage", build, inputs), expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_range_of_fractions_does_not_drift(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        return mb.range_1d(start=0.0, end=mb.squeeze(x=x), step=0.1)

    (got,) = results(tmp_path / "m.mlpackage", build, {"x": np.array([5000], np.float32)})
    np.testing.assert_allclose(got, np.arange(50000) * 0.1, rtol=1e-6)


# --- positions

INDICES = np.array([[0, 2, 1], [-1, 3, 4]], np.float32)
LENGTHS = np.array([2, 0, 1, 2], np.float32)
ONE_HOT: dict[str, Case] = {
    "integers": (lambda i: mb.one_hot(indices=i, one_hot_vector_size=4), lambda i: i[..., np.newaxis] == np.arange(4)),
    "values": (
        lambda i: mb.one_hot(indices=i, one_hot_vector_size=4, axis=1, on_value=2.5, off_value=-0.5),
        lambda i: np.where(i[:, np.newaxis] == np.arange(4)[:, np.newaxis], 2.5, -0.5),
    ),
    "flags": (
        lambda i: mb.cast(
            x=mb.one_hot(indices=i, one_hot_vector_size=4, axis=0, on_value=False, off_value=True), dtype="int32"
        ),
        lambda i: i != np.arange(4)[:, np.newaxis, np.newaxis],
    ),
}


def test_one_hot_is_off_everywhere_for_an_index_outside(tmp_path: Path) -> None:
    cases = {
        name: (lambda x, case=case: case(mb.cast(x=x, dtype="int32")), expected)
        for name, (case, expected) in ONE_HOT.items()
    }
    check(tmp_path / "m.mlpackage", cases, INDICES)


def reversed_sequences(x: np.ndarray, lengths: np.ndarray, along: int, batch: int) -> np.ndarray:
    rows = np.moveaxis(x, (batch, along), (0, 1)).copy()
    for row, length in zip(rows, lengths.astype(int), strict=True):
        row[:length] = row[:length][::-1].copy()
    return np.moveaxis(rows, (0, 1), (batch, along))


def test_reverse_sequence(tmp_path: Path) -> None:
    axes = [(0, 1), (1, 0), (2, 1), (-1, 0), (0, 2)]

    def build(x: Any, lengths: Any) -> list[Any]:
        integers = mb.cast(x=lengths, dtype="int32")
        return [
            mb.reverse_sequence(
                x=x,
                lengths=mb.slice_by_size(x=integers, begin=[0], size=[X.shape[batch]]),
                seq_axis=along,
                batch_axis=batch,
            )
            for along, batch in axes
        ]

    got = results(tmp_path / "m.mlpackage", build, {"x": X, "lengths": LENGTHS})
    for (along, batch), result in zip(axes, got, strict=True):
        want = reversed_sequences(X, LENGTHS[: X.shape[batch]], along, batch)
        np.testing.assert_array_equal(result, want)


# --- between channels and space


def depth_to_space(x: np.ndarray, block: int) -> np.ndarray:
    n, c, h, w = x.shape
    blocks = x.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(x: np.ndarray, block: int) -> np.ndarray:
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // block, block, w // block, block).transpose(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * block**2, h // block, w // block)


def space_to_batch(x: np.ndarray) -> np.ndarray:
    """Blocks of 2 x 3, with one row and then one row more, and two columns and one column."""
    x = np.pad(x, [(0, 0), (0, 0), (1, 1), (2, 1)])
    return np.concatenate([x[:, :, row::2, column::3] for row in range(2) for column in range(3)])


REARRANGING: dict[str, Case] = {
    "depth_to_space": (lambda x: mb.depth_to_space(x=x, block_size=2), lambda x: depth_to_space(x, 2)),
    "space_to_depth": (lambda x: mb.space_to_depth(x=x, block_size=2), lambda x: space_to_depth(x, 2)),
    "pixel_shuffle": (
        lambda x: mb.pixel_shuffle(x=x, upscale_factor=2),
        lambda x: torch.pixel_shuffle(torch.from_numpy(x), 2).numpy(),
    ),
    "pixel_unshuffle": (
        lambda x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)),
        lambda x: torch.pixel_unshuffle(torch.from_numpy(x), 2).numpy(),
    ),
    "space_to_batch": (
        lambda x: mb.space_to_batch(x=x, block_shape=[2, 3], paddings=[[1, 1], [2, 1]]),
        space_to_batch,
    ),
    "batch_to_space": (
        lambda x: mb.batch_to_space(
            x=mb.space_to_batch(x=x, block_shape=[2, 3], paddings=[[1, 1], [2, 1]]),
            block_shape=[2, 3],
            crops=[[1, 1], [2, 1]],
        ),
        identity,
    ),
}


def test_rearranging(tmp_path: Path) -> None:
    check(tmp_path / "m.mlpackage", REARRANGING, IMAGE)


# --- non_maximum_suppression


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boxes (x, y, width, height) with (x, y) in the middle: the intersection's share of the union."""
    low, high = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2), np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    common = np.prod(np.maximum(high - low, 0))
    return float(common / (a[2:].prod() + b[2:].prod() - common))


def suppressed(
    boxes: np.ndarray, scores: np.ndarray, iou: float, least: float | None, most: int, *, by_class: bool
) -> list[int]:
    """Which of the boxes [B, 4] with scores [B, K] are left."""
    best, classes = scores.max(1), scores.argmax(1)
    kept: list[int] = []
    for i in np.argsort(-best, kind="stable"):
        rivals = [j for j in kept if not by_class or classes[i] == classes[j]]
        if (least is None or best[i] >= least) and all(overlap(boxes[i], boxes[j]) <= iou for j in rivals):
            kept.append(int(i))
    return (kept or [int(best.argmax())])[:most]


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize(("least", "most"), [(None, 30), (None, 5), (-1.0, 30), (0.4, 5), (2.0, 3)])
def test_non_maximum_suppression(least: float | None, most: int, by_class: bool, tmp_path: Path) -> None:
    """iOS17 has boxes in the last dimension, and no score threshold."""
    rng = np.random.default_rng(most)
    boxes = np.concatenate([rng.uniform(0, 10, (2, 20, 2)), rng.uniform(2, 5, (2, 20, 2))], 2).astype(np.float32)
    scores = rng.uniform(0, 1, (2, 20, 3)).astype(np.float32)
    turned = least is None
    opset = ct.target.iOS17 if turned else ct.target.iOS16
    threshold = {} if turned else {"score_threshold": least}

    def build(boxes: Any, scores: Any) -> Any:
        return mb.non_maximum_suppression(
            boxes=boxes, scores=scores, iou_threshold=0.2, max_boxes=most, per_class_suppression=by_class, **threshold
        )

    def as_taken(rows: np.ndarray) -> np.ndarray:
        return rows.transpose(0, 2, 1) if turned else rows

    inputs = {"boxes": as_taken(boxes), "scores": as_taken(scores)}
    got_boxes, got_scores, got_indices, *got_counts = results(tmp_path / "m.mlpackage", build, inputs, opset=opset)
    for n in range(2):
        kept = suppressed(boxes[n], scores[n], 0.2, least, most, by_class=by_class)
        nothing = most - len(kept)
        np.testing.assert_array_equal(got_indices[n], kept + [-1] * nothing)
        np.testing.assert_array_equal(as_taken(got_boxes)[n], np.pad(boxes[n, kept], [(0, nothing), (0, 0)]))
        np.testing.assert_array_equal(as_taken(got_scores)[n], np.pad(scores[n, kept], [(0, nothing), (0, 0)]))
        if not turned:
            assert got_counts[0][n] == len(kept)


# --- batches


def test_a_batch_keeps_samples_apart_whatever_becomes_of_the_leading_dimension(tmp_path: Path) -> None:
    """Everything here works along a leading dimension that is no longer the batch of 1."""
    shape = (1, 4, 6, 8)
    constant = RNG.normal(0, 1, (2, 6, 8)).astype(np.float32)

    def build(x: Any) -> list[Any]:
        rows = mb.squeeze(x=x, axes=[0])  # [4, 6, 8]
        first, second = mb.split(x=rows, num_splits=2, axis=0)
        blocks = mb.reshape(x=x, shape=[2, 2, 6, 8])
        cases = [
            mb.transpose(x=rows, perm=[2, 0, 1]),
            mb.reshape(x=rows, shape=[3, 8, 8]),
            mb.reshape_like(
                x=rows, ref_tensors=(mb.reshape(x=rows, shape=[12, 16]),), begins=(0,), ends=(2,), end_masks=(False,)
            ),
            mb.flatten2d(x=rows, axis=2),
            mb.expand_dims(x=rows, axes=[0]),
            mb.concat(values=[first, rows], axis=0),
            mb.concat(values=[constant, second, first], axis=0),
            mb.concat(values=[first, constant], axis=1),
            mb.concat(values=[first, second], axis=0, interleave=True),
            mb.concat(values=[first, second], axis=1, interleave=True),
            mb.stack(values=[first, second, constant], axis=0),
            mb.stack(values=[first, second], axis=1),
            mb.slice_by_index(
                x=rows,
                begin=[-1, 0, 0],
                end=[0, 5, 0],
                stride=[-2, 1, 1],
                begin_mask=[False, False, True],
                end_mask=[True, False, True],
            ),
            mb.slice_by_index(x=rows, begin=[2, 0, 1], end=[0, 5, 0], squeeze_mask=[True, False, True]),
            mb.slice_by_index(x=blocks, begin=[1, 0, 0, 0], end=[0, 2, 6, 8], squeeze_mask=[True, False, False, False]),
            mb.slice_by_size(x=rows, begin=[1, 2, 0], size=[2, -1, 8]),
            mb.tile(x=rows, reps=[3, 1, 2]),
            mb.pad(x=rows, pad=[1, 2, 0, 0, 0, 1], mode="reflect"),
            mb.reverse(x=rows, axes=[0, 2]),
            mb.sliding_windows(x=rows, axis=0, size=3),
            mb.space_to_batch(x=blocks, block_shape=[3, 2], paddings=[[0, 0], [1, 1]]),
            mb.batch_to_space(x=blocks, block_shape=[1, 2], crops=[[0, 0], [1, 0]]),
            mb.pixel_shuffle(x=mb.reshape(x=x, shape=[2, 4, 3, 8]), upscale_factor=2),
            mb.add(x=blocks, y=constant[:1]),
            mb.softmax(x=rows, axis=1),
            mb.matmul(x=rows, y=rows, transpose_y=True),
            mb.mul(x=rows, y=mb.cast(x=mb.reduce_sum(x=mb.shape(x=blocks), axes=[0], keep_dims=False), dtype="fp32")),
            mb.topk(x=rows, k=2, axis=-1)[0],
            mb.cumsum(x=rows, axis=1),
        ]
        return [mb.reshape(x=case, shape=[1, -1]) for case in cases]

    from_mil(tmp_path / "m.mlpackage", build, shape)
    model = load(tmp_path / "m.mlpackage", threads=1)
    assert model.any_batch
    samples = RNG.normal(0, 1, (3, *shape[1:])).astype(np.float32)
    together = model.predict_batch({"x": samples})
    for n, sample in enumerate(samples):
        alone = model.predict({"x": sample[np.newaxis]})
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][n : n + 1], value, rtol=1e-6, atol=1e-6, err_msg=name)


class Windows(nn.Module):
    """What Swin and MaxViT do: attention inside windows, which take turns with the batch; and a class token, as ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.linear = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.roll((1, 2), (2, 3)).reshape(1, 8, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1)
        x = x.reshape(4, 16, 8).transpose(0, 1)  # [tokens, windows, channels]
        x = torch.cat([self.token.expand(1, 4, 8), x])
        query, key, value = self.linear(x).reshape(17, 4 * 2, 12).transpose(0, 1).split(4, 2)  # [windows * heads, ...]
        x = (query @ key.transpose(1, 2)).softmax(-1) @ value
        x = x.transpose(0, 1).reshape(17, 4, 8).transpose(0, 1)
        return x[:, 0].reshape(1, 4, 8).mean(1) - x[:, 1:].reshape(1, 64, 8).amax(1)


def test_windows_that_take_turns_with_the_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Windows().eval()
    from_torch(tmp_path / "m.mlpackage", network, (1, 8, 8, 8))
    model = load(tmp_path / "m.mlpackage", threads=1)
    assert model.any_batch
    x = torch.randn(3, 1, 8, 8, 8)
    want = torch.cat([network(sample) for sample in x]).detach().numpy()
    np.testing.assert_allclose(model.predict_batch({"x": x[:, 0].numpy()})["y"], want, rtol=1e-4, atol=1e-5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vision_transformer": lambda: torchvision.models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=4
    ),
    "swin": lambda: torchvision.models.SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[2], num_heads=[2], window_size=[4, 4], num_classes=4
    ),
    "max_vit": lambda: torchvision.models.MaxVit(
        input_size=(16, 16),
        stem_channels=4,
        partition_size=2,
        block_channels=[8],
        block_layers=[1],
        head_dim=4,
        stochastic_depth_prob=0.0,
        num_classes=4,
    ),
    "shufflenet": lambda: torchvision.models.ShuffleNetV2([1, 1, 1], [4, 8, 16, 32, 8], num_classes=4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_reshape_across_the_batch_run_any_batch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)  # some are zero at first, which would show nothing
    size = 32 if name == "shufflenet" else 16
    exported = torch.export.export(network, (torch.rand(1, 3, size, size),)).run_decompositions({})
    package = ct.convert(
        exported,
        outputs=[ct.TensorType("y")],
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
    )
    package.save(str(tmp_path / "m.mlpackage"))
    model = load(tmp_path / "m.mlpackage", threads=1)
    assert model.any_batch
    images = torch.randn(3, 3, size, size)
    got = model.predict_batch({model.input_names[0]: images.numpy()})["y"]
    np.testing.assert_allclose(got, network(images).detach().numpy(), rtol=1e-3, atol=1e-4)


# --- what is refused


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda x: mb.pad(x=x, pad=[3, 0, 0, 0], mode="reflect"), "cannot add 3 to a dimension of 3"),
        (lambda x: mb.reverse_sequence(x=x, lengths=[1, 2]), "are the same"),
    ],
)
def test_arguments_outside_the_definition_are_refused(build: Callable[..., Any], why: str, tmp_path: Path) -> None:
    from_mil(tmp_path / "m.mlpackage", build, X.shape)
    with pytest.raises(PackageError, match=why):
        load(tmp_path / "m.mlpackage")
