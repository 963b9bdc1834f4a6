"""What Core AI's converter spells out is one node of ONNX again where that is the same function, and only there."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from coreml_prune_bench.runtimes.portable.session import Model
from tests.runtimes.portable.coreai.written import Written

VECTOR = ("f32", (1, 7))
GIVEN = np.array([[-5, -3, -1.5, 0, 1.5, 3, 5]], np.float32)


def nodes(model: Model, folder: Path) -> list[str]:
    path = folder / "m.onnx"
    model.to_onnx(path)
    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node if node.op_type != "Identity"]


def bounded(graph: Written, value: int, low: float, high: float) -> int:
    constants = [graph.constant(np.array(bound, np.float32)) for bound in (low, high)]
    (above,) = graph.operation("maximum", [value, constants[0]], VECTOR)
    return graph.operation("minimum", [above, constants[1]], VECTOR)[0]


def hard_sigmoid(graph: Written, value: int, added: float = 3.0) -> int:
    three, six = (graph.constant(np.array(number, np.float32)) for number in (added, 6))
    (moved,) = graph.operation("add", [value, three], VECTOR)
    return graph.operation("divide", [bounded(graph, moved, 0, 6), six], VECTOR)[0]


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 6, ["Clip"]), (-1, -1, ["Clip"]), (2, 1, ["Max", "Min"])], ids=str
)
def test_bounds_are_one_where_they_are_in_order(tmp_path: Path, low: float, high: float, expected: list[str]) -> None:
    graph = Written()
    model = graph.load(tmp_path, [bounded(graph, graph.input("x", VECTOR), low, high)])
    np.testing.assert_array_equal(model.predict({"x": GIVEN})["y0"], np.minimum(np.maximum(GIVEN, low), high))
    assert nodes(model, tmp_path) == expected


@pytest.mark.parametrize("turned", [False, True])
def test_hard_swish_is_one(tmp_path: Path, turned: bool) -> None:
    graph = Written()
    value = graph.input("x", VECTOR)
    factors = [value, hard_sigmoid(graph, value)]
    model = graph.load(tmp_path, graph.operation("mul", factors[::-1] if turned else factors, VECTOR))
    np.testing.assert_allclose(model.predict({"x": GIVEN})["y0"], GIVEN * np.clip(GIVEN / 6 + 0.5, 0, 1), atol=1e-6)
    assert nodes(model, tmp_path) == ["HardSwish"]


def test_hard_sigmoid_of_another_value_stays_one_of_its_own(tmp_path: Path) -> None:
    graph = Written()
    value = graph.input("x", VECTOR)
    (other,) = graph.operation("abs", [value], VECTOR)
    model = graph.load(tmp_path, graph.operation("mul", [other, hard_sigmoid(graph, value)], VECTOR))
    want = abs(GIVEN) * np.clip(GIVEN / 6 + 0.5, 0, 1)
    np.testing.assert_allclose(model.predict({"x": GIVEN})["y0"], want, atol=1e-6)
    assert sorted(nodes(model, tmp_path)) == ["Abs", "HardSigmoid", "Mul"]


def test_another_number_is_another_function(tmp_path: Path) -> None:
    graph = Written()
    value = graph.input("x", VECTOR)
    model = graph.load(tmp_path, graph.operation("mul", [value, hard_sigmoid(graph, value, 2.0)], VECTOR))
    np.testing.assert_allclose(model.predict({"x": GIVEN})["y0"], GIVEN * np.clip(GIVEN + 2, 0, 6) / 6, atol=1e-6)
    assert nodes(model, tmp_path) == ["Add", "Clip", "Div", "Mul"]


def test_part_that_is_a_result_itself_stays(tmp_path: Path) -> None:
    graph = Written()
    value = graph.input("x", VECTOR)
    sigmoid = hard_sigmoid(graph, value)
    model = graph.load(tmp_path, [*graph.operation("mul", [value, sigmoid], VECTOR), sigmoid])
    product, part = model.predict({"x": GIVEN}).values()
    np.testing.assert_allclose(product, GIVEN * part, atol=1e-6)
    assert nodes(model, tmp_path) == ["HardSigmoid", "Mul"]


@pytest.mark.parametrize(
    ("value", "pads", "expected"),
    [
        (-np.inf, (1, 1, 1, 0), ["MaxPool"]),
        (0.0, (1, 1, 1, 0), ["Pad", "MaxPool"]),
        (-np.inf, (2, 0, 0, 0), ["Pad", "MaxPool"]),  # a window of padding alone
    ],
    ids=str,
)
def test_pool_pads_itself_with_what_changes_nothing(
    tmp_path: Path, value: float, pads: tuple[int, ...], expected: list[str]
) -> None:
    graph, image = Written(), np.arange(30, dtype=np.float32).reshape(1, 1, 5, 6) - 15
    top, bottom, left, right = pads
    shape = (1, 1, 5 + top + bottom, 6 + left + right)
    sizes, kernel, ones = (graph.constant(np.array(v, np.int32)) for v in ([0] * 4 + list(pads), [2, 2], [1, 1]))
    given = [graph.input("x", ("f32", image.shape)), sizes, graph.constant(np.array(value, np.float32))]
    padded = graph.operation("pad", given, ("f32", shape), padding_mode="constant")
    out = (1, 1, shape[2] - 1, shape[3] - 1)
    pooled = graph.operation(
        "max_pool_2d", [*padded, kernel, ones, ones, graph.constant(np.array(False))], ("f32", out)
    )
    model = graph.load(tmp_path, pooled)
    wide = np.pad(image, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (2, 2), (2, 3))
    np.testing.assert_array_equal(model.predict({"x": image})["y0"], windows.max((-1, -2)))
    assert nodes(model, tmp_path) == expected
