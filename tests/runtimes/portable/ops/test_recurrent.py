"""Recurrent layers against their definitions written step by step in NumPy, and against PyTorch's."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

from coreml_prune_bench.core.errors import UnsupportedOperationError
from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil, from_torch

STEPS, BATCH, SIZE, HIDDEN = 4, 2, 3, 5

Arrays = tuple[np.ndarray, ...]
Options = Mapping[str, Any]

X = np.random.default_rng(0).normal(0, 0.7, (STEPS, BATCH, SIZE)).astype(np.float32)
H, C = np.random.default_rng(1).normal(0, 0.7, (2, BATCH, 2 * HIDDEN)).astype(np.float32)

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "scaled_tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "sigmoid_hard": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
}


def activation(options: Options, parameter: str, default: str) -> Callable[[np.ndarray], np.ndarray]:
    return ACTIVATIONS[options.get(parameter, default)]


def rnn_step(x: np.ndarray, h: np.ndarray, options: Options) -> Arrays:
    total = x @ options["weight_ih"].T + h @ options["weight_hh"].T + options.get("bias", 0)
    return (activation(options, "activation", "tanh")(total),)


def gru_step(x: np.ndarray, h: np.ndarray, options: Options) -> Arrays:
    gate, new = activation(options, "recurrent_activation", "sigmoid"), activation(options, "activation", "tanh")
    zeros = np.zeros(3 * HIDDEN)
    w_r, w_o, w_z = np.split(options["weight_ih"], 3)
    r_r, r_o, r_z = np.split(options["weight_hh"], 3)
    b_r, b_o, b_z = np.split(options.get("bias", zeros), 3)
    i_r, i_o, i_z = np.split(options.get("input_bias", zeros), 3)
    r = gate(x @ w_r.T + i_r + h @ r_r.T + b_r)
    z = gate(x @ w_z.T + i_z + h @ r_z.T + b_z)
    past = r * (h @ r_o.T + b_o) if options.get("reset_after") else (r * h) @ r_o.T + b_o
    return ((1 - z) * new(x @ w_o.T + i_o + past) + z * h,)


def lstm_step(x: np.ndarray, h: np.ndarray, c: np.ndarray, options: Options) -> Arrays:
    gate = activation(options, "recurrent_activation", "sigmoid")
    total = x @ options["weight_ih"].T + h @ options["weight_hh"].T + options.get("bias", 0)
    i, f, o, z = np.split(total, 4, axis=1)
    p_i, p_f, p_o = np.split(options.get("peephole", np.zeros(3 * HIDDEN)), 3)
    i, f = gate(i + p_i * c), gate(f + p_f * c)
    c = f * c + i * activation(options, "cell_activation", "tanh")(z)
    c = np.clip(c, -options["clip"], options["clip"]) if "clip" in options else c
    return gate(o + p_o * c) * activation(options, "activation", "tanh")(c), c


def layer(step: Callable[..., Arrays], options: Options, states: Sequence[np.ndarray]) -> list[np.ndarray]:
    """All steps' hidden states, in the order in which they were taken, and the last states."""
    taken = []
    for x in X[::-1] if options.get("direction") == "reverse" else X:
        states = step(x, *states, options)
        taken.append(states[0])
    return [np.stack(taken), *states]


def both_directions(options: Options, states: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A bidirectional LSTM's steps are in the order of time."""
    back = {name.removesuffix("_back"): value for name, value in options.items() if name.endswith("_back")}
    common = {name: value for name, value in options.items() if name in ("clip", "activation")}
    one = layer(lstm_step, {**options, "direction": "forward"}, [state[:, :HIDDEN] for state in states])
    other = layer(lstm_step, {**common, **back, "direction": "reverse"}, [state[:, HIDDEN:] for state in states])
    other[0] = other[0][::-1]
    return [np.concatenate(pair, axis=-1) for pair in zip(one, other, strict=True)]


# Options of the cases; a tuple is the shape of an array that the test draws.


def weights(gates: int, suffix: str = "") -> dict[str, Any]:
    return {f"weight_ih{suffix}": (gates * HIDDEN, SIZE), f"weight_hh{suffix}": (gates * HIDDEN, HIDDEN)}


def filled(options: Options, draw: np.random.Generator) -> dict[str, Any]:
    """The options with arrays where they have shapes."""
    return {
        name: draw.normal(0, 0.7, value).astype(np.float32) if isinstance(value, tuple) else value
        for name, value in options.items()
    }


RNN: dict[str, dict[str, Any]] = {
    "plain": {},
    "reverse": {"direction": "reverse", "bias": (HIDDEN,)},
    **{name: {"activation": name} for name in ("relu", "sigmoid", "sigmoid_hard", "scaled_tanh", "linear")},
}
GRU: dict[str, dict[str, Any]] = {
    "plain": {},
    "reverse": {"direction": "reverse", "bias": (3 * HIDDEN,)},
    "activations": {"recurrent_activation": "hard_sigmoid", "activation": "linear", "bias": (3 * HIDDEN,)},
    "reset after": {"reset_after": True, "bias": (3 * HIDDEN,), "input_bias": (3 * HIDDEN,)},
    "reset after, one bias": {"reset_after": True, "bias": (3 * HIDDEN,)},
    "reset before, both biases": {"bias": (3 * HIDDEN,), "input_bias": (3 * HIDDEN,)},
}
LSTM: dict[str, dict[str, Any]] = {
    "plain": {},
    "reverse": {"direction": "reverse", "bias": (4 * HIDDEN,)},
    "peephole": {"peephole": (3 * HIDDEN,), "bias": (4 * HIDDEN,)},
    "activations": {"recurrent_activation": "hard_sigmoid", "cell_activation": "relu", "activation": "scaled_tanh"},
    "clip": {"clip": np.float32(0.3)},
    "clip, all": {
        "clip": np.float32(0.4),
        "direction": "reverse",
        "bias": (4 * HIDDEN,),
        "peephole": (3 * HIDDEN,),
        "recurrent_activation": "hard_sigmoid",
        "cell_activation": "linear",
        "activation": "relu",
    },
}
BIDIRECTIONAL: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {
        "bias": (4 * HIDDEN,),
        "bias_back": (4 * HIDDEN,),
        "peephole": (3 * HIDDEN,),
        "peephole_back": (3 * HIDDEN,),
        "activation": "relu",
    },
    "bias of one": {"bias_back": (4 * HIDDEN,)},
    "clip": {"clip": np.float32(0.3), "bias": (4 * HIDDEN,), "peephole_back": (3 * HIDDEN,)},
}


def compare(
    path: Path, cases: Mapping[str, Options], build: Callable[..., Any], expected: Callable[[Options], list[np.ndarray]]
) -> None:
    """Each case once with all steps and once with the last alone, in one program."""

    def program(x: Any, h: Any, c: Any) -> list[Any]:
        results = []
        for options in cases.values():
            for output_sequence in (True, False):
                results += build(x=x, h=h, c=c, output_sequence=output_sequence, **options)
        return results

    model = load(from_mil(path / "m.mlpackage", program, X.shape, H.shape, C.shape, opset=ct.target.iOS18), threads=1)
    results = iter(model.predict({"x": X, "h": H, "c": C}).values())
    for name, options in cases.items():
        steps, hidden, *cell = expected(options)
        # The last step is each direction's own.
        for first in (steps, hidden[np.newaxis]):
            for value in (first, hidden, *cell):
                result = next(results)
                assert result.shape == value.shape, name
                np.testing.assert_allclose(result, value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_rnn(draw: np.random.Generator, tmp_path: Path) -> None:
    cases = {name: filled({**weights(1), **options}, draw) for name, options in RNN.items()}

    def build(x: Any, h: Any, c: Any, **options: Any) -> Any:
        return mb.rnn(x=x, initial_h=first_half(h), **options)

    compare(tmp_path, cases, build, lambda options: layer(rnn_step, options, [H[:, :HIDDEN]]))


def test_gru(draw: np.random.Generator, tmp_path: Path) -> None:
    cases = {name: filled({**weights(3), **options}, draw) for name, options in GRU.items()}

    def build(x: Any, h: Any, c: Any, **options: Any) -> Any:
        return mb.gru(x=x, initial_h=first_half(h), **options)

    compare(tmp_path, cases, build, lambda options: layer(gru_step, options, [H[:, :HIDDEN]]))


def test_lstm(draw: np.random.Generator, tmp_path: Path) -> None:
    cases = {name: filled({**weights(4), **options}, draw) for name, options in LSTM.items()}

    def build(x: Any, h: Any, c: Any, **options: Any) -> Any:
        return mb.lstm(x=x, initial_h=first_half(h), initial_c=first_half(c), **options)

    compare(tmp_path, cases, build, lambda options: layer(lstm_step, options, [H[:, :HIDDEN], C[:, :HIDDEN]]))


def test_bidirectional_lstm(draw: np.random.Generator, tmp_path: Path) -> None:
    cases = {
        name: filled({**weights(4), **weights(4, "_back"), **options}, draw) for name, options in BIDIRECTIONAL.items()
    }

    def build(x: Any, h: Any, c: Any, **options: Any) -> Any:
        return mb.lstm(x=x, initial_h=h, initial_c=c, direction="bidirectional", **options)

    compare(tmp_path, cases, build, lambda options: both_directions(options, [H, C]))


def first_half(state: Any) -> Any:
    return mb.slice_by_index(x=state, begin=[0, 0], end=[BATCH, HIDDEN])


def test_clipped_lstm_of_constants(draw: np.random.Generator, tmp_path: Path) -> None:
    """It is computed while translating."""
    options = filled({**weights(4), "clip": np.float32(0.3)}, draw)

    def build(y: Any) -> Any:
        zeros = np.zeros((BATCH, HIDDEN), np.float32)
        return mb.add(x=y, y=mb.lstm(x=X, initial_h=zeros, initial_c=zeros, **options)[1])

    y = draw.normal(0, 0.7, (BATCH, HIDDEN)).astype(np.float32)
    (result,) = load(from_mil(tmp_path / "m.mlpackage", build, y.shape), threads=1).predict({"y": y}).values()
    expected = layer(lstm_step, options, [np.zeros((BATCH, HIDDEN))] * 2)[1]
    np.testing.assert_allclose(result, y + expected, rtol=1e-4, atol=1e-5)


class Lstm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.LSTM(SIZE, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, (h, c) = self.layers(x)
        return torch.cat([steps.flatten(), h.flatten(), c.flatten()])


def test_lstm_of_pytorch_for_any_number_of_steps(tmp_path: Path) -> None:
    lstm, inputs = Lstm(), [ct.TensorType("x", shape=(2, ct.RangeDim(1, 9, default=3), SIZE))]
    model = load(from_torch(tmp_path / "m.mlpackage", lstm, (2, 3, SIZE), inputs=inputs), threads=1)
    for x in (torch.randn(2, 3, SIZE), torch.randn(2, 7, SIZE)):
        with torch.no_grad():
            np.testing.assert_allclose(model.predict({"x": x.numpy()})["y"], lstm(x), atol=1e-6)


def test_unknown_activation_is_refused(draw: np.random.Generator, tmp_path: Path) -> None:
    options = filled(weights(1), draw)

    def build(x: Any) -> Any:
        h = np.zeros((BATCH, HIDDEN), np.float32)
        return mb.rnn(x=x, initial_h=h, activation="softsign", **options)[0]

    with pytest.raises(UnsupportedOperationError, match="activation is 'softsign'"):
        load(from_mil(tmp_path / "m.mlpackage", build, X.shape))
