"""Each elementwise operation and reduction against its MIL definition written in NumPy."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from coreml_prune_bench.mlprogram.reader import read
from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil

# [2, 3, 4], with the values that activations turn at, and none where a function has a pole.
X = np.random.default_rng(0).normal(0, 2, (2, 3, 4)).astype(np.float32)
X[0, 0] = [-3.0, 0.0, 0.5, 3.0]
UNIT = (X / 10).astype(np.float32)
POSITIVE = (np.abs(X) + 0.1).astype(np.float32)
Y = np.random.default_rng(1).choice([-2.5, -1.0, 0.5, 2.0], (2, 3, 4)).astype(np.float32)
ALPHA = np.array([0.1, 0.2, 0.3], np.float32)


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf)(x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


Case = tuple[Callable[..., Any], Callable[[np.ndarray], np.ndarray], np.ndarray]

# A case's name begins with its operation; what follows a dash says how it is used.
ONE_INPUT: dict[str, Case] = {
    "abs": (lambda x: mb.abs(x=x), np.abs, X),
    "acos": (lambda x: mb.acos(x=x), np.arccos, UNIT),
    "asin": (lambda x: mb.asin(x=x), np.arcsin, UNIT),
    "atan": (lambda x: mb.atan(x=x), np.arctan, X),
    "atanh": (lambda x: mb.atanh(x=x), np.arctanh, UNIT),
    "ceil": (lambda x: mb.ceil(x=x), np.ceil, X),
    "clip": (lambda x: mb.clip(x=x, alpha=-1.0, beta=1.5), lambda x: np.clip(x, -1, 1.5), X),
    "cos": (lambda x: mb.cos(x=x), np.cos, X),
    "cosh": (lambda x: mb.cosh(x=x), np.cosh, X),
    "erf": (lambda x: mb.erf(x=x), erf, X),
    "exp": (lambda x: mb.exp(x=x), np.exp, X),
    "exp2": (lambda x: mb.exp2(x=x), np.exp2, X),
    "floor": (lambda x: mb.floor(x=x), np.floor, X),
    "identity": (lambda x: mb.identity(x=x), lambda x: x, X),
    "inverse": (lambda x: mb.inverse(x=x, epsilon=0.5), lambda x: 1 / (x + 0.5), POSITIVE),
    "inverse-default": (lambda x: mb.inverse(x=x), lambda x: 1 / (x + 1e-4), POSITIVE),
    "log": (lambda x: mb.log(x=x, epsilon=0.5), lambda x: np.log(x + 0.5), POSITIVE),
    "rsqrt": (lambda x: mb.rsqrt(x=x, epsilon=0.5), lambda x: 1 / np.sqrt(x + 0.5), POSITIVE),
    "round": (lambda x: mb.round(x=x), np.round, np.array([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]], np.float32)),
    "sign": (lambda x: mb.sign(x=x), np.sign, X),
    "sin": (lambda x: mb.sin(x=x), np.sin, X),
    "sinh": (lambda x: mb.sinh(x=x), np.sinh, X),
    "sqrt": (lambda x: mb.sqrt(x=x), np.sqrt, POSITIVE),
    "square": (lambda x: mb.square(x=x), np.square, X),
    "tan": (lambda x: mb.tan(x=x), np.tan, UNIT),
    "tanh": (lambda x: mb.tanh(x=x), np.tanh, X),
    "threshold": (lambda x: mb.threshold(x=x, alpha=0.5), lambda x: np.maximum(x, 0.5), X),
    "relu": (lambda x: mb.relu(x=x), lambda x: np.maximum(x, 0), X),
    "relu6": (lambda x: mb.relu6(x=x), lambda x: np.clip(x, 0, 6), X * 4),
    "leaky_relu": (lambda x: mb.leaky_relu(x=x, alpha=0.1), lambda x: np.where(x >= 0, x, 0.1 * x), X),
    "elu": (lambda x: mb.elu(x=x, alpha=0.7), lambda x: np.where(x > 0, x, 0.7 * np.expm1(x)), X),
    "sigmoid": (lambda x: mb.sigmoid(x=x), sigmoid, X),
    "sigmoid_hard": (
        lambda x: mb.sigmoid_hard(x=x, alpha=0.25, beta=0.4),
        lambda x: np.clip(0.25 * x + 0.4, 0, 1),
        X,
    ),
    # At the threshold itself x stays: X holds -3 and 3.
    "thresholded_relu-negative": (
        lambda x: mb.thresholded_relu(x=x, alpha=-3.0),
        lambda x: np.where(x >= -3, x, 0),
        X,
    ),
    "thresholded_relu-positive": (lambda x: mb.thresholded_relu(x=x, alpha=3.0), lambda x: np.where(x >= 3, x, 0), X),
    "clamped_relu": (
        lambda x: mb.clamped_relu(x=x, alpha=0.5, beta=1.0),
        lambda x: np.minimum(1.0, np.where(x >= 0, x, 0.5 * x)),
        X,
    ),
    "linear_activation": (lambda x: mb.linear_activation(x=x, alpha=2.0, beta=0.5), lambda x: 2 * x + 0.5, X),
    "scaled_tanh": (lambda x: mb.scaled_tanh(x=x, alpha=2.0, beta=0.5), lambda x: 2 * np.tanh(0.5 * x), X),
    "silu": (lambda x: mb.silu(x=x), lambda x: x * sigmoid(x), X),
    "softplus": (lambda x: mb.softplus(x=x), lambda x: np.log1p(np.exp(x)), X),
    "softsign": (lambda x: mb.softsign(x=x), lambda x: x / (1 + np.abs(x)), X),
    "gelu": (lambda x: mb.gelu(x=x, mode="EXACT"), lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))), X),
    "gelu-tanh": (
        lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        X,
    ),
    "gelu-sigmoid": (lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"), lambda x: x * sigmoid(1.702 * x), X),
    "prelu": (
        lambda x: mb.prelu(x=x, alpha=ALPHA),
        lambda x: np.where(x > 0, x, ALPHA[:, None, None] * x),
        X.reshape(2, 3, 2, 2),
    ),
    "softmax": (lambda x: mb.softmax(x=x, axis=1), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True), X),
    "reduce_l1_norm": (lambda x: mb.reduce_l1_norm(x=x, axes=[1]), lambda x: np.abs(x).sum(1), X),
    "reduce_l2_norm": (lambda x: mb.reduce_l2_norm(x=x, axes=[1]), lambda x: np.sqrt((x**2).sum(1)), X),
    "reduce_log_sum": (lambda x: mb.reduce_log_sum(x=x, axes=[1]), lambda x: np.log(x.sum(1)), POSITIVE),
    "reduce_log_sum_exp": (lambda x: mb.reduce_log_sum_exp(x=x, axes=[1]), lambda x: np.log(np.exp(x).sum(1)), X),
    "reduce_max": (lambda x: mb.reduce_max(x=x, axes=[-1], keep_dims=True), lambda x: x.max(-1, keepdims=True), X),
    "reduce_mean": (lambda x: mb.reduce_mean(x=x, axes=[1, 2]), lambda x: x.mean((1, 2)), X),
    "reduce_mean-spatial": (
        lambda x: mb.reduce_mean(x=x, axes=[-1, -2], keep_dims=True),
        lambda x: x.mean((2, 3), keepdims=True),
        X.reshape(2, 3, 2, 2),
    ),
    "reduce_mean-all": (lambda x: mb.reduce_mean(x=x, keep_dims=True), lambda x: x.mean(keepdims=True), X),
    "reduce_min": (lambda x: mb.reduce_min(x=x, axes=[0]), lambda x: x.min(0), X),
    "reduce_prod": (lambda x: mb.reduce_prod(x=x, axes=[2]), lambda x: x.prod(2), X),
    "reduce_sum": (lambda x: mb.reduce_sum(x=x, axes=[0, 2]), lambda x: x.sum((0, 2)), X),
    "reduce_sum_square": (lambda x: mb.reduce_sum_square(x=x, axes=[2]), lambda x: (x**2).sum(2), X),
    "reduce_argmax": (lambda x: mb.reduce_argmax(x=x, axis=1), lambda x: x.argmax(1), X),
    "reduce_argmin": (
        lambda x: mb.reduce_argmin(x=x, axis=-1, keep_dims=True),
        lambda x: x.argmin(-1, keepdims=True),
        X,
    ),
    "cast-int32": (lambda x: mb.cast(x=x, dtype="int32"), np.trunc, X),
    "reshape": (lambda x: mb.reshape(x=x, shape=[4, -1]), lambda x: x.reshape(4, 6), X),
    "transpose": (lambda x: mb.transpose(x=x, perm=[-1, 0, 1]), lambda x: x.transpose(2, 0, 1), X),
    "expand_dims": (
        lambda x: mb.expand_dims(x=x, axes=[0, -1]),
        lambda x: x.reshape(1, 2, 3, 4, 1),
        X,
    ),
    # Axis 0 has two elements and stays, as in PyTorch.
    "squeeze": (
        lambda x: mb.squeeze(x=x, axes=[0, 1]),
        lambda x: x.reshape(2, 12, 1),
        X.reshape(2, 1, 12, 1),
    ),
    "squeeze-all": (lambda x: mb.squeeze(x=x), lambda x: x.reshape(2, 12), X.reshape(2, 1, 12, 1)),
    "concat": (lambda x: mb.concat(values=[x, x], axis=-1), lambda x: np.concatenate([x, x], -1), X),
    "linear": (
        lambda x: mb.linear(x=x, weight=Y[0], bias=ALPHA),
        lambda x: x @ Y[0].T + ALPHA,
        X,
    ),
    "linear-no_bias": (lambda x: mb.linear(x=x, weight=Y[0]), lambda x: x @ Y[0].T, X[0]),
    "matmul-transposed": (
        lambda x: mb.matmul(x=x, y=Y[1], transpose_y=True),
        lambda x: x @ Y[1].T,
        X,
    ),
    "matmul-vector": (lambda x: mb.matmul(x=Y[0, 0], y=x, transpose_y=True), lambda x: x @ Y[0, 0], X),
    "batch_norm": (
        lambda x: mb.batch_norm(x=x, mean=ALPHA, variance=ALPHA + 1, epsilon=np.float32(0.01)),
        lambda x: (x - ALPHA[:, None]) / np.sqrt(ALPHA[:, None] + 1.01),
        X,
    ),
    "batch_norm-affine": (
        lambda x: mb.batch_norm(x=x, mean=ALPHA, variance=ALPHA + 1, gamma=-ALPHA, beta=ALPHA * 2),
        lambda x: -ALPHA[:, None] * (x - ALPHA[:, None]) / np.sqrt(ALPHA[:, None] + 1 + 1e-5) + 2 * ALPHA[:, None],
        X,
    ),
}


@pytest.mark.parametrize("name", ONE_INPUT)
def test_operation_of_one_input(name: str, tmp_path: Path) -> None:
    build, reference, x = ONE_INPUT[name]
    path = from_mil(tmp_path / "m.mlpackage", build, x.shape)
    assert name.split("-")[0] in [operation.type for operation in read(path).operations]
    model = load(path, threads=1)
    (result,) = model.predict({"x": x}).values()
    np.testing.assert_allclose(result, reference(x), rtol=1e-5, atol=1e-6)


TWO_INPUTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "floor_div": np.floor_divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mod": np.mod,
    "mul": np.multiply,
    "real_div": np.divide,
    "sub": np.subtract,
    "pow": lambda x, y: np.power(np.abs(x) + 1, y),
    "equal": np.equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "not_equal": np.not_equal,
}


def as_number(value: Any) -> Any:
    return mb.cast(x=value, dtype="fp32") if value.dtype == types.bool else value


@pytest.fixture(scope="module")
def float_pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Every binary operation on the same pair, of which a third is equal."""

    def build(x: Any, y: Any) -> Any:
        base = mb.add(x=mb.abs(x=x), y=1.0)
        results = [getattr(mb, name)(x=base if name == "pow" else x, y=y) for name in TWO_INPUTS]
        return tuple(as_number(result) for result in results)

    path = from_mil(tmp_path_factory.mktemp("binary") / "m.mlpackage", build, X.shape, Y.shape)
    return dict(zip(TWO_INPUTS, load(path, threads=1).predict({"x": pair_x(), "y": Y}).values(), strict=True))


def pair_x() -> np.ndarray:
    x = X.copy()
    x[:, 0] = Y[:, 0]
    return x


@pytest.mark.parametrize("name", TWO_INPUTS)
def test_binary_operation_on_floats(name: str, float_pairs: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(float_pairs[name], TWO_INPUTS[name](pair_x(), Y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("floor_div", [-4, 3, -4, 3]), ("mod", [1, 1, -1, -1])])
def test_integers_divide_towards_minus_infinity(name: str, expected: list[int], tmp_path: Path) -> None:
    path = from_mil(
        tmp_path / "m.mlpackage", lambda x, y: getattr(mb, name)(x=x, y=y), (1, 4), (1, 4), dtype=types.int32
    )
    x, y = np.array([[-7, 7, 7, -7]], np.int32), np.array([[2, 2, -2, -2]], np.int32)
    (result,) = load(path).predict({"x": x, "y": y}).values()
    assert result.tolist() == [expected]


def test_logical_operations_are_their_truth_tables(tmp_path: Path) -> None:
    names = ["logical_and", "logical_or", "logical_xor"]

    def build(x: Any, y: Any) -> Any:
        a, b = mb.greater(x=x, y=0.0), mb.cast(x=y, dtype="bool")
        results = [getattr(mb, name)(x=a, y=b) for name in names] + [mb.logical_not(x=a)]
        return tuple(mb.cast(x=result, dtype="fp32") for result in results)

    path = from_mil(tmp_path / "m.mlpackage", build, (1, 4), (1, 4))
    x, y = np.array([[0, 0, 1, 1]], np.float32), np.array([[0, 1, 0, 1]], np.float32)
    results = [value[0].tolist() for value in load(path).predict({"x": x, "y": y}).values()]
    assert results == [[0, 0, 0, 1], [0, 1, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]]
