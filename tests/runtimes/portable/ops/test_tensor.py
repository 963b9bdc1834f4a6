"""Operations that reshape, join, pad, fill and choose, against NumPy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil
from tests.runtimes.portable.programs import Case, check, identity, outputs

X = np.random.default_rng(0).normal(0, 2, (2, 3, 4)).astype(np.float32)
X[0, 0] = [1.0, 0.0, 1.0, -1.0]  # ties, and a zero


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
    for got, want in zip(outputs(tmp_path / "m.mlpackage", build, inputs), expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_range_of_fractions_does_not_drift(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        return mb.range_1d(start=0.0, end=mb.squeeze(x=x), step=0.1)

    (got,) = outputs(tmp_path / "m.mlpackage", build, {"x": np.array([5000], np.float32)})
    np.testing.assert_allclose(got, np.arange(50000) * 0.1, rtol=1e-6)


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
