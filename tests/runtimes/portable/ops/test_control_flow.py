"""Branches, loops, lists, and states inside them, against the same written in Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.runtimes.portable import load
from coreml_prune_bench.runtimes.portable.session import Model
from tests.packages import from_mil, from_torch

X = np.array([1.0, -2.0, 3.0], np.float32)


def is_positive(x: Any) -> Any:
    return mb.greater(x=mb.reduce_sum(x=x, axes=[0]), y=0.0)


def count(rounds: int, body: Callable[..., Any], *values: Any) -> Any:
    """`body` on the number of the round and `values`, so many times."""
    return mb.while_loop(
        _cond=lambda i, *_: mb.less(x=i, y=np.int32(rounds)),
        _body=lambda i, *values: (mb.add(x=i, y=1), *body(i, *values)),
        loop_vars=(np.int32(0), *values),
    )[1:]


def loaded(path: Path, build: Callable[..., Any], *shapes: tuple[int, ...], **options: Any) -> Callable[..., Any]:
    """The program as a function of its inputs that returns its results as a list."""
    model = load(from_mil(path / "m.mlpackage", build, *shapes), threads=1, **options)

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        return list(model.predict(dict(zip(model.input_names, inputs, strict=True))).values())

    return run


# --- branches


def branches(x: Any) -> Any:
    """Results that a branch computes, has from outside, has as a constant, and that only one of them computes."""
    outside, doubled = mb.sub(x=x, y=1.0), mb.mul(x=x, y=2.0)

    def then() -> Any:
        return mb.add(x=x, y=1.0), outside, mb.const(val=np.float32([7, 8])), mb.identity(x=mb.identity(x=x))

    def otherwise() -> Any:
        return mb.square(x=x), doubled, mb.const(val=np.float32([9, 10])), mb.mul(x=x, y=3.0)

    return mb.cond(pred=is_positive(x), _true_fn=then, _false_fn=otherwise)


def test_branch(tmp_path: Path) -> None:
    run = loaded(tmp_path, branches, X.shape)
    for x, expected in ((X, [X + 1, X - 1, [7, 8], X]), (-X, [X**2, -X * 2, [9, 10], -X * 3])):
        for result, value in zip(run(x), expected, strict=True):
            np.testing.assert_array_equal(result, value)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_branch_within_a_branch(precision: str, tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        half = mb.mul(x=x, y=0.5)

        def inner() -> Any:
            return mb.cond(
                pred=is_positive(half), _true_fn=lambda: mb.add(x=half, y=10.0), _false_fn=lambda: mb.abs(x=half)
            )

        return mb.cond(pred=mb.logical_not(x=is_positive(x)), _true_fn=inner, _false_fn=inner)

    run = loaded(tmp_path, build, X.shape, precision=precision)
    np.testing.assert_array_equal(run(X), [X / 2 + 10])
    np.testing.assert_array_equal(run(-X), [np.abs(X / 2)])


@pytest.mark.parametrize("pred", [True, False])
def test_branch_of_a_constant_is_no_branch(pred: bool, tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        constant = mb.not_equal(x=np.int32(int(pred)), y=mb.const(val=np.int32(0)))
        return mb.cond(pred=constant, _true_fn=lambda: mb.add(x=x, y=1.0), _false_fn=lambda: mb.identity(x=x))

    np.testing.assert_array_equal(loaded(tmp_path, build, X.shape)(X), [X + pred])


def test_branches_of_different_shapes(tmp_path: Path) -> None:
    """What follows does not know the shape, and works all the same."""

    def build(x: Any) -> Any:
        count_ = mb.reduce_sum(x=mb.cast(x=mb.greater(x=x, y=0.0), dtype="int32"), axes=[0], keep_dims=True)
        chosen = mb.slice_by_size(x=x, begin=[0], size=count_)
        kept = mb.cond(
            pred=is_positive(x), _true_fn=lambda: chosen, _false_fn=lambda: mb.concat(values=[chosen, x], axis=0)
        )
        return mb.add(x=mb.mul(x=kept, y=2.0), y=1.0)

    run = loaded(tmp_path, build, X.shape)
    np.testing.assert_array_equal(run(X), [X[:2] * 2 + 1])
    np.testing.assert_array_equal(run(-X), [np.array([-1, -1, 2, -3]) * 2 + 1])


def test_samples_of_a_batch_take_their_own_branch(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        pred = mb.greater(x=mb.reduce_sum(x=x), y=0.0)
        return mb.cond(pred=pred, _true_fn=lambda: mb.identity(x=x), _false_fn=lambda: mb.mul(x=x, y=10.0))

    model = load(from_mil(tmp_path / "m.mlpackage", build, (1, 3)), threads=1)
    assert not model.any_batch
    (result,) = model.predict_batch({"x": np.stack([X, -X])}).values()
    np.testing.assert_array_equal(result, [X, -10 * X])


# --- loops


def test_loop_hands_values_around(tmp_path: Path) -> None:
    """Fibonacci: each value becomes another one's; x comes back as it went in."""

    def build(x: Any, y: Any) -> Any:
        return count(10, lambda i, a, b, same: (b, mb.add(x=a, y=b), same), mb.sub(x=y, y=1.0), y, x)

    a, b, same = loaded(tmp_path, build, X.shape, (1,))(X, np.ones(1, np.float32))
    assert (a, b) == (55, 89)
    np.testing.assert_array_equal(same, X)


def test_number_of_rounds_is_data(tmp_path: Path) -> None:
    def build(x: Any, n: Any) -> Any:
        return mb.while_loop(
            _cond=lambda i, value: mb.less(x=i, y=n),
            _body=lambda i, value: (mb.add(x=i, y=1.0), mb.mul(x=value, y=x)),
            loop_vars=([0.0], mb.add(x=x, y=0.0)),
        )

    run = loaded(tmp_path, build, X.shape, (1,))
    for rounds in (0, 1, 4):
        passed, result = run(X, np.array([rounds], np.float32))
        assert passed == rounds
        np.testing.assert_array_equal(result, X ** (rounds + 1))


def test_loop_in_a_branch_in_a_loop(tmp_path: Path) -> None:
    """Every second round adds its own number as often as that number says."""

    def build(x: Any) -> Any:
        def body(i: Any, total: Any) -> Any:
            step = mb.cast(x=i, dtype="fp32")

            def inner() -> Any:
                return mb.while_loop(
                    _cond=lambda j, _: mb.less(x=j, y=i),
                    _body=lambda j, total: (mb.add(x=j, y=1), mb.add(x=total, y=step)),
                    loop_vars=(np.int32(0), total),
                )[1]

            odd = mb.equal(x=mb.mod(x=i, y=2), y=1)
            return (mb.cond(pred=odd, _true_fn=inner, _false_fn=lambda: mb.identity(x=total)),)

        return count(6, body, x)

    np.testing.assert_array_equal(loaded(tmp_path, build, X.shape)(X), [X + 1 + 9 + 25])


def test_loop_whose_values_grow(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        (long,) = count(3, lambda i, value: (mb.concat(values=[value, mb.add(x=x, y=1.0)], axis=0),), x)
        return mb.mul(x=long, y=2.0), mb.shape(x=long)

    doubled, shape = loaded(tmp_path, build, X.shape)(X)
    np.testing.assert_array_equal(doubled, 2 * np.concatenate([X, X + 1, X + 1, X + 1]))
    np.testing.assert_array_equal(shape, [12])


class Gru(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.GRU(4, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


def test_gru_of_pytorch_is_a_loop_over_any_number_of_steps(tmp_path: Path) -> None:
    gru, inputs = Gru(), [ct.TensorType("x", shape=(2, ct.RangeDim(1, 8, default=3), 4))]
    model = load(from_torch(tmp_path / "m.mlpackage", gru, (2, 3, 4), inputs=inputs), threads=1)
    for x in (torch.randn(2, 3, 4), torch.randn(2, 8, 4)):
        with torch.no_grad():
            np.testing.assert_allclose(model.predict({"x": x.numpy()})["y"], gru(x), atol=1e-6)


# --- lists


def test_list_grows_by_writes(tmp_path: Path) -> None:
    def build(x: Any, y: Any) -> Any:
        ls = mb.make_list(init_length=2, elem_shape=(3,))
        ls = mb.list_write(ls=ls, index=0, value=x)
        longer = mb.list_write(ls=ls, index=4, value=y)
        spread = mb.list_scatter(ls=longer, indices=[6, 1], value=np.arange(6, dtype=np.float32).reshape(2, 3))
        lengths = [mb.list_length(ls=each) for each in (ls, longer, spread)]
        # The writes left the earlier lists alone.
        return (*lengths, mb.list_read(ls=ls, index=1), mb.list_gather(ls=spread, indices=[6, 4, 1, 0, 5]))

    *lengths, unwritten, gathered = loaded(tmp_path, build, X.shape, X.shape)(X, X + 10)
    assert lengths == [2, 5, 7]
    np.testing.assert_array_equal(unwritten, np.zeros(3))
    np.testing.assert_array_equal(gathered, [[0, 1, 2], X + 10, [3, 4, 5], X, np.zeros(3)])


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("element", [(3,), ("n",)])
def test_list_filled_by_a_loop(dynamic: bool, element: tuple[int | str, ...], tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        def body(i: Any, ls: Any) -> Any:
            return (mb.list_write(ls=ls, index=i, value=mb.mul(x=x, y=mb.cast(x=i, dtype="fp32"))),)

        ls = mb.make_list(init_length=1 if dynamic else 4, elem_shape=element, dynamic_length=dynamic)
        (ls,) = count(4, body, ls)
        return mb.list_length(ls=ls), mb.list_gather(ls=ls, indices=mb.range_1d(start=0, end=4, step=1))

    length, gathered = loaded(tmp_path, build, X.shape)(X)
    assert length == 4
    np.testing.assert_array_equal(gathered, np.outer(range(4), X))


def test_list_of_a_length_that_is_data(tmp_path: Path) -> None:
    """Of whole numbers; a list goes through a branch too."""

    def build(x: Any, n: Any) -> Any:
        length = mb.squeeze(x=mb.cast(x=n, dtype="int32"))
        ls = mb.make_list(init_length=length, elem_shape=(3,), dtype="int32")
        whole = mb.cast(x=x, dtype="int32")
        ls = mb.cond(
            pred=is_positive(x),
            _true_fn=lambda: mb.list_write(ls=ls, index=length, value=whole),
            _false_fn=lambda: mb.list_write(ls=ls, index=0, value=whole),
        )
        return mb.list_length(ls=ls), mb.list_read(ls=ls, index=mb.sub(x=mb.list_length(ls=ls), y=1))

    run, n = loaded(tmp_path, build, X.shape, (1,)), np.array([5], np.float32)
    for x, expected_length, expected in ((X, 6, X), (-X, 5, np.zeros(3))):
        length, last = run(x, n)
        assert (length, last.dtype) == (expected_length, np.int32)
        np.testing.assert_array_equal(last, expected)


# --- states


def stateful(path: Path, build: Callable[..., Any]) -> Model:
    """`build` takes x [3] and a state [3]."""
    specs = [mb.TensorSpec((3,), dtype=types.fp16), mb.StateTensorSpec((3,), dtype=types.fp16)]
    program = mb.program(input_specs=specs, opset_version=ct.target.iOS18)(build)
    package = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    package.save(str(path / "m.mlpackage"))
    return load(path / "m.mlpackage", threads=1)


def add_to(state: Any, x: Any) -> Any:
    return mb.coreml_update_state(state=state, value=mb.add(x=mb.read_state(input=state), y=x))


def test_state_is_read_as_it_was(tmp_path: Path) -> None:
    def build(x: Any, s: Any) -> Any:
        before = mb.read_state(input=s)
        add_to(s, x)  # nobody uses what this returns
        return mb.identity(x=before), add_to(s, x), mb.read_state(input=s)

    model = stateful(tmp_path, build)
    state = model.make_state()
    for i in range(3):
        before, returned, after = model.predict({"x": X}, state).values()
        np.testing.assert_array_equal(before, 2 * i * X)
        np.testing.assert_array_equal(returned, 2 * (i + 1) * X)
        np.testing.assert_array_equal(after, returned)
    np.testing.assert_array_equal(state["s"], 6 * X)


def test_state_is_written_by_one_branch(tmp_path: Path) -> None:
    def build(x: Any, s: Any) -> Any:
        positive = mb.greater(x=mb.reduce_sum(x=x, axes=[0]), y=np.float16(0))
        result = mb.cond(pred=positive, _true_fn=lambda: add_to(s, x), _false_fn=lambda: mb.identity(x=x))
        return mb.add(x=result, y=np.float16(1)), mb.read_state(input=s)

    model = stateful(tmp_path, build)
    state = model.make_state()
    for x, result, held in ((X, X, X), (-X, -X, X), (X, 2 * X, 2 * X)):
        values = model.predict({"x": x}, state).values()
        for value, expected in zip((*values, state["s"]), (result + 1, held, held), strict=True):
            np.testing.assert_array_equal(value, expected)


def test_state_is_written_in_every_round(tmp_path: Path) -> None:
    def build(x: Any, s: Any) -> Any:
        def body(i: Any, value: Any) -> Any:
            return (mb.mul(x=add_to(s, value), y=np.float16(2)),)

        return count(3, body, x)[0], mb.read_state(input=s)

    model = stateful(tmp_path, build)
    state, held = model.make_state(), np.zeros(3)
    for _ in range(2):
        value = X.copy()
        for _ in range(3):
            held = held + value
            value = held * 2
        result, read = model.predict({"x": X}, state).values()
        np.testing.assert_array_equal(result, value)
        np.testing.assert_array_equal(read, held)
        np.testing.assert_array_equal(state["s"], held)


def test_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    model = stateful(tmp_path, lambda x, s: add_to(s, x))
    with pytest.raises(PackageError, match="expected the state"):
        model.predict({"x": X}, {"s": np.zeros(4, np.float32)})
