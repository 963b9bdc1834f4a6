"""Each of Core AI's operations against NumPy, torch or SciPy: for one sample, and for several at once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.runtimes.portable import translate  # noqa: F401  (registers the operations)
from coreml_prune_bench.runtimes.portable.registry import _OPERATIONS
from tests.runtimes.portable.coreai.operations import CASES, Case, Given, X, ints, x
from tests.runtimes.portable.coreai.written import Written, type_of

SAMPLES = 3


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operation_is_its_definition_one_by_one_and_at_once(tmp_path: Path, case: Case) -> None:
    graph, values, given = Written(), [], {}
    arrays = [_array(operand) for operand in case.operands]
    for position, (operand, array) in enumerate(zip(case.operands, arrays, strict=True)):
        if not isinstance(operand, Given):
            values.append(graph.constant(array))
            continue
        given[f"x{position}"] = operand
        value = graph.input(f"x{position}", type_of(array))
        values.append(graph.operation("cast", [value], ("i1", array.shape))[0] if operand.flag else value)
    want = _expected(case, arrays)
    results = graph.operation(case.name, values, *map(type_of, want), **case.attributes)
    model = graph.load(tmp_path, results)
    samples = [{name: _turned(operand, turn) for name, operand in given.items()} for turn in range(SAMPLES)]
    for sample in samples:
        own = [sample.get(f"x{position}", array) for position, array in enumerate(arrays)]
        _check(list(model.predict(sample).values()), _expected(case, own))
    if not given:
        return
    assert model.any_batch is case.at_once
    if case.at_once:
        batch = model.predict_batch({name: np.concatenate([sample[name] for sample in samples]) for name in given})
        for turn, sample in enumerate(samples):
            own = [sample.get(f"x{position}", array) for position, array in enumerate(arrays)]
            _check([value[turn : turn + 1] for value in batch.values()], _expected(case, own))


def _array(operand: Given | np.ndarray | float) -> np.ndarray:
    array = operand.array if isinstance(operand, Given) else np.asarray(operand)
    return array.astype(np.int32) if array.dtype == np.int64 else array


def _turned(operand: Given, turn: int) -> np.ndarray:
    """The same elements in another order."""
    return np.roll(operand.array.reshape(-1), 5 * turn).reshape(operand.array.shape)


def _expected(case: Case, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    operands = [a != 0 if isinstance(o, Given) and o.flag else a for o, a in zip(case.operands, arrays, strict=True)]
    result = case.expected(*operands)
    parts = [np.asarray(part) for part in (result if isinstance(result, list) else [result])]
    kinds = {"f": np.float32, "i": np.int32}
    return [p.astype(kinds[p.dtype.kind]) if p.dtype.kind in kinds and p.dtype != np.int8 else p for p in parts]


def _check(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> None:
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape
        np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=2e-5, atol=2e-5)


# --- regions


def _reduced(tmp_path: Path, name: str, inner: str, order: Sequence[int], extra: Sequence[np.ndarray]) -> Any:
    """`name` along the last axis of [1, 3, 4], with a region of the one operation `inner` of its arguments."""
    graph = Written()
    value = graph.input("x", ("f32", (1, 3, 4)))
    axes = graph.constant(ints(2)[0] if name == "reduce_index" else ints(2))
    out = "i1" if inner == "greater" else "f32"
    with graph.region(("f32", ()), ("f32", ())) as (region, arguments):
        region["results"] = graph.operation(inner, [arguments[i] for i in order], (out, ()))
    kind = "ui32" if name == "reduce_index" else "f32"
    constants = [graph.constant(array) for array in extra]
    results = graph.operation(name, [value, axes, *constants], (kind, (1, 3, 1)), regions=[region])
    return graph.load(tmp_path, results)


@pytest.mark.parametrize(
    ("inner", "initial", "expected"),
    [("add", 2.0, np.sum), ("mul", 2.0, np.prod), ("maximum", 0.5, np.max), ("minimum", 0.5, np.min)],
)
def test_reduction_with_a_region(tmp_path: Path, inner: str, initial: float, expected: Callable[..., Any]) -> None:
    model = _reduced(tmp_path, "reduce", inner, (0, 1), [np.float32(initial)])
    batch = np.concatenate([_turned(X, turn) for turn in range(SAMPLES)])
    want = expected(batch, axis=-1, keepdims=True, initial=initial)
    np.testing.assert_allclose(model.predict_batch({"x": batch})["y0"], want, rtol=1e-5)


def test_index_of_the_best_counts_only_what_is_better_than_the_first_value(tmp_path: Path) -> None:
    given = np.array([[[1, 4, 4, 2], [-1, -2, -3, -4], [0, 0, 0, 0]]], np.float32)
    start = [np.float32(0), np.uint32(7)]
    for number, (order, want) in enumerate((((1, 0), [1, 7, 7]), ((0, 1), [7, 3, 7]))):
        folder = tmp_path / str(number)
        folder.mkdir()
        model = _reduced(folder, "reduce_index", "greater", order, start)
        assert model.any_batch
        assert model.predict({"x": given})["y0"].reshape(-1).tolist() == want


def test_region_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"'coreai\.reduce'.*its region reduces with 'sub'"):
        _reduced(tmp_path, "reduce", "sub", (0, 1), [np.float32(0)])


def test_loop_hands_on_what_its_first_region_makes(tmp_path: Path) -> None:
    """Values are doubled while their sum is below 100; the first region gives the body the value and its double."""
    graph, vector = Written(), ("f32", (1, 3))
    value = graph.input("x", vector)
    limit, one, two = (graph.constant(np.array(v, np.float32)) for v in (100, 1, 2))
    axes, none = graph.constant(ints(0, 1)), graph.constant(np.zeros(0, np.int32))
    with graph.region(vector, ("f32", ())) as (before, (current, count)):
        total = graph.operation("reduce_sum", [current, axes], ("f32", (1, 1)))
        scalar = graph.operation("reshape", [*total, none], ("f32", ()))
        below = graph.operation("greater", [limit, *scalar], ("i1", ()))
        doubled = graph.operation("mul", [current, two], vector)
        before["results"] = [*below, *doubled, count, current]
    with graph.region(vector, ("f32", ()), vector) as (after, (twice, counted, _)):
        after["results"] = [twice, *graph.operation("add", [counted, one], ("f32", ()))]
    start = graph.constant(np.array(0, np.float32))
    results = graph.operation("while", [value, start], vector, ("f32", ()), vector, regions=[before, after])
    model = graph.load(tmp_path, results)
    for given, rounds in ((np.array([[1, 2, 4]], np.float32), 4), (np.array([[90, 9, 9]], np.float32), 0)):
        doubled_last, counted_rounds, last = model.predict({"x": given}).values()
        np.testing.assert_array_equal(last, given * 2**rounds)
        np.testing.assert_array_equal(doubled_last, given * 2 ** (rounds + 1))
        assert counted_rounds == rounds


def test_branches(tmp_path: Path) -> None:
    graph, vector = Written(), ("f32", (1, 3))
    value = graph.input("x", vector)
    zero, axes = graph.constant(np.array(0, np.float32)), graph.constant(ints(0, 1))
    total = graph.operation("reduce_sum", [value, axes], ("f32", (1, 1)))
    scalar = graph.operation("reshape", [*total, graph.constant(np.zeros(0, np.int32))], ("f32", ()))
    positive = graph.operation("greater", [*scalar, zero], ("i1", ()))
    regions = []
    for kind in ("exp", "abs"):
        with graph.region() as (region, _):
            region["results"] = graph.operation(kind, [value], vector)
        regions.append(region)
    model = graph.load(tmp_path, graph.operation("if", positive, vector, regions=regions))
    given = np.array([[1, 2, -1]], np.float32)
    np.testing.assert_allclose(model.predict({"x": given})["y0"], np.exp(given), rtol=1e-6)
    np.testing.assert_array_equal(model.predict({"x": -given})["y0"], abs(given))


def test_complex_numbers_are_pairs(tmp_path: Path) -> None:
    """Both parts of (x + iy) * c - 1, moved about."""
    graph, flat, kind = Written(), ("f32", (1, 3)), "complex<f32>"
    real, imaginary = graph.input("x", flat), graph.input("y", flat)
    turn = np.array([[1 + 2j, -1j, 3]], np.complex64)
    made = graph.operation("create_complex", [real, imaginary], (kind, (1, 3)))
    parts = [graph.constant(np.ascontiguousarray(part)) for part in (turn.real, turn.imag)]
    product = graph.operation("mul", [*made, *graph.operation("create_complex", parts, (kind, (1, 3)))], (kind, (1, 3)))
    one = graph.operation("cast", [graph.constant(np.array(1, np.float32))], (kind, ()))
    less = graph.operation("sub", [*product, *one], (kind, (1, 3)))
    moved = graph.operation("reshape", [*less, graph.constant(ints(1, 3, 1))], (kind, (1, 3, 1)))
    parts = [graph.operation(f"{part}_part", moved, ("f32", (1, 3, 1)))[0] for part in ("real", "imaginary")]
    model = graph.load(tmp_path, parts)
    x, y = (np.concatenate([_turned(operand, turn) for turn in range(SAMPLES)]) for operand in (_ROW, _OTHER_ROW))
    want = ((x + 1j * y) * turn - 1)[..., None]
    got = model.predict_batch({"x": x, "y": y})
    assert model.any_batch
    np.testing.assert_allclose(got["y0"] + 1j * got["y1"], want, rtol=1e-5)


_ROW, _OTHER_ROW = x(3), x(3, low=1, high=2)


def test_unknown_operation_on_complex_numbers_is_named(tmp_path: Path) -> None:
    graph = Written()
    value = graph.input("x", ("f32", (1, 3)))
    made = graph.operation("create_complex", [value, value], ("complex<f32>", (1, 3)))
    with pytest.raises(PackageError, match=r"'coreai\.exp' of complex numbers"):
        graph.load(tmp_path, graph.operation("exp", made, ("complex<f32>", (1, 3))))


_IN_REGIONS = {"reduce", "reduce_index", "while", "if"}


def test_every_operation_that_is_known_stands_here() -> None:
    known = {name.removeprefix("coreai.") for name in _OPERATIONS if name.startswith("coreai.")}
    assert known == {case.name for case in CASES} | _IN_REGIONS
