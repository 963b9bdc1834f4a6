"""Arithmetic of integers, floats and booleans, and casts between them, against NumPy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil
from tests.runtimes.portable.programs import Drawn, Operations, all_close, run

X = np.array([[-7, 7, -6, 6, 0, 5], [2**30, -(2**30), 1, -1, 9, 2]], np.int32)
Y = np.array([[2, -2, 3, -3, 4, 5], [7, 7, -1, -1, 2, 3]], np.int32)


def test_binary_operations_on_integers(tmp_path: Path) -> None:
    names = ["add", "sub", "maximum", "minimum", "floor_div", "mod"]
    names += ["equal", "not_equal", "greater", "greater_equal", "less", "less_equal"]
    numpys = {"sub": "subtract", "floor_div": "floor_divide"}
    operations: Operations = {name: lambda x, y, name=name: getattr(mb, name)(x=x, y=y) for name in names}
    references = {name: getattr(np, numpys.get(name, name))(X, Y) for name in names}
    operations["mul"] = lambda x, y: mb.mul(x=mb.mod(x=x, y=100), y=y)
    references["mul"] = X % 100 * Y
    operations["real_div"] = lambda x, y: mb.real_div(x=x, y=y)
    references["real_div"] = np.trunc(X / Y)
    operations["pow"] = lambda x, y: mb.pow(x=mb.mod(x=x, y=5), y=mb.abs(x=y))
    references["pow"] = (X % 5) ** np.abs(Y)
    operations["matmul"] = lambda x, y: mb.matmul(x=x, y=y, transpose_y=True)
    references["matmul"] = X @ Y.T
    results = run(tmp_path, operations, X, Y, dtype=types.int32)
    assert {name: result.tolist() for name, result in results.items()} == {
        name: reference.astype(np.int32).tolist() for name, reference in references.items()
    }


def test_integers_divided_by_zero_stop_nothing(tmp_path: Path) -> None:
    names = ["real_div", "floor_div", "mod"]
    operations: Operations = {name: lambda x, y, name=name: getattr(mb, name)(x=x, y=y) for name in names}
    x, y = np.array([[1, -(2**31), 9]], np.int32), np.array([[0, -1, 2]], np.int32)
    results = run(tmp_path, operations, x, y, dtype=types.int32)
    assert [results[name][0, 2] for name in names] == [4, 4, 1]


REDUCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reduce_l1_norm": lambda x: np.abs(x).sum(1),
    "reduce_l2_norm": lambda x: np.sqrt((x**2).sum(1)),
    "reduce_log_sum": lambda x: np.log(np.abs(x).sum(1)),
    "reduce_log_sum_exp": lambda x: np.log(np.exp(x).sum(1)),
    "reduce_max": lambda x: x.max(1),
    "reduce_mean": lambda x: x.mean(1),
    "reduce_min": lambda x: x.min(1),
    "reduce_prod": lambda x: x.prod(1),
    "reduce_sum": lambda x: x.sum(1),
    "reduce_sum_square": lambda x: (x**2).sum(1),
}


def test_unary_operations_and_reductions_of_integers(tmp_path: Path) -> None:
    x = np.array([[-7, 2, 0, 5], [9, 1, 3, -2]], np.int32)
    weight = np.array([[1, 2, 3, 4], [-1, 0, 1, 0]], np.int32)
    operations: Operations = {
        "abs": lambda x: mb.abs(x=x),
        "exp2": lambda x: mb.exp2(x=x),
        "sign": lambda x: mb.sign(x=x),
        "square": lambda x: mb.square(x=x),
        "threshold": lambda x: mb.threshold(x=x, alpha=1),
        "linear": lambda x: mb.linear(x=x, weight=weight, bias=np.array([10, 20], np.int32)),
        "linear of whole floats": lambda x: mb.linear(x=x, weight=weight.astype(np.float32)),
        "reduce_argmax": lambda x: mb.reduce_argmax(x=x, axis=-1),
        "reduce_argmin": lambda x: mb.reduce_argmin(x=x, axis=0, output_dtype="uint16"),
    }
    references = {
        "abs": np.abs(x),
        "exp2": np.trunc(np.exp2(x)),
        "sign": np.sign(x),
        "square": x**2,
        "threshold": np.maximum(x, 1),
        "linear": x @ weight.T + [10, 20],
        "linear of whole floats": x @ weight.T,
        "reduce_argmax": x.argmax(-1),
        "reduce_argmin": x.argmin(0),
    }
    for name, reference in REDUCTIONS.items():
        operations[name] = lambda x, name=name: getattr(mb, name)(
            x=mb.abs(x=x) if name == "reduce_log_sum" else x, axes=[1]
        )
        references[name] = np.trunc(reference(x))
    results = run(tmp_path, operations, x, dtype=types.int32)
    assert {name: result.tolist() for name, result in results.items()} == {
        name: reference.astype(np.int32).tolist() for name, reference in references.items()
    }


def test_reducing_no_axis_leaves_each_element_by_itself(drawn: Drawn, tmp_path: Path) -> None:
    axes = np.zeros(0, np.int32)
    x = drawn(2, 3)
    operations: Operations = {
        "square": lambda x: mb.reduce_sum_square(x=x, axes=axes, keep_dims=True),
        "sum": lambda x: mb.reduce_sum(x=x, axes=axes),
    }
    all_close(run(tmp_path, operations, x), {"square": x**2, "sum": x})


def test_floats_divide_as_pythons(tmp_path: Path) -> None:
    x = np.array([[1, -1, 7, -7, 6, -6, 3.5, 0, 1e6]], np.float32)
    y = np.array([[0.1, 0.1, -2, 2, 3, np.inf, -0.5, 4, 7]], np.float32)
    tenth = np.float32(0.1)
    operations: Operations = {
        "floor_div": lambda x, y: mb.floor_div(x=x, y=y),
        "mod": lambda x, y: mb.mod(x=x, y=y),
        "by a constant": lambda x, y: mb.floor_div(x=x, y=tenth),
        "by zero": lambda x, y: mb.floor_div(x=x, y=mb.sub(x=x, y=x)),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        references = {"floor_div": x // y, "mod": x % y, "by a constant": x // tenth, "by zero": x // np.zeros_like(x)}
    all_close(run(tmp_path, operations, x, y), references, tolerance=1e-6)


def test_casts_cut_towards_zero_and_to_the_lowest_bits(tmp_path: Path) -> None:
    x = np.array(
        [[-40000.7, -300.5, -129, -1.9, -0.3, 0, 0.3, 1.9, 127.9, 128, 255.5, 300.2, 40000, 70000.9]], np.float32
    )
    narrow = {"int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16}
    operations: Operations = {}
    references = {}
    for name, dtype in narrow.items():
        operations[name] = lambda x, name=name: mb.cast(x=mb.cast(x=x, dtype=name), dtype="int32")
        references[name] = x.astype(np.int32).astype(dtype)
        operations[f"int32 {name}"] = lambda x, name=name: mb.cast(
            x=mb.cast(x=mb.cast(x=x, dtype="int32"), dtype=name), dtype="fp32"
        )
        references[f"int32 {name}"] = references[name]
        for wider, other in narrow.items():
            key = f"{name} {wider}"
            operations[key] = lambda x, name=name, wider=wider: mb.cast(
                x=mb.cast(x=mb.cast(x=x, dtype=name), dtype=wider), dtype="int32"
            )
            references[key] = references[name].astype(other)
    operations["bool"] = lambda x: mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="fp32")
    references["bool"] = (x != 0).astype(np.float32)
    operations["int32 bool"] = lambda x: mb.cast(x=mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="bool"), dtype="fp32")
    references["int32 bool"] = (np.trunc(x) != 0).astype(np.float32)
    operations["bool int8"] = lambda x: mb.cast(x=mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="int8"), dtype="int32")
    references["bool int8"] = (x != 0).astype(np.float32)
    results = run(tmp_path, operations, x)
    assert {name: result.tolist() for name, result in results.items()} == {
        name: reference.tolist() for name, reference in references.items()
    }


def test_casting_to_float16_rounds_in_float16_precision_alone(tmp_path: Path) -> None:
    path = from_mil(
        tmp_path / "m.mlpackage",
        lambda x: (mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32"), mb.add(x=x, y=x)),
        (1, 2),
    )
    x = np.array([[0.1, 1 + 2**-12]], np.float32)
    for precision, dtype in (("float32", np.float32), ("float16", np.float16)):
        cast, twice = load(path, precision=precision, threads=1).predict({"x": x}).values()
        np.testing.assert_array_equal(cast, x.astype(dtype).astype(np.float32))
        np.testing.assert_array_equal(twice, 2 * x)


def test_epsilon_defaults_to_the_type_of_x(tmp_path: Path) -> None:
    operations: Operations = {
        "log fp16": lambda x: mb.cast(x=mb.log(x=mb.cast(x=x, dtype="fp16")), dtype="fp32"),
        "log": lambda x: mb.log(x=x),
        "log fp16 by another": lambda x: mb.cast(
            x=mb.log(x=mb.cast(x=x, dtype="fp16"), epsilon=np.float32(0.25)), dtype="fp32"
        ),
    }
    x = np.array([[0, 1, 2]], np.float32)
    with np.errstate(divide="ignore"):
        references = {
            "log fp16": np.log(x),
            "log": np.log(x + np.float32(1e-45)),
            "log fp16 by another": np.log(x + 0.25),
        }
    all_close(run(tmp_path, operations, x), references)
