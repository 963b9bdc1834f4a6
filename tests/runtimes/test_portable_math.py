"""Arithmetic of every type, convolution, pooling, normalization and attention in their less common forms.

Many results come from one program each: converting takes most of the time. References are NumPy, torch, or the
definition written out.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from torch.nn import functional

from coreml_prune_bench.core.errors import UnsupportedOperationError
from coreml_prune_bench.runtimes.portable import load
from tests.runtimes.packages import from_mil

Results = dict[str, np.ndarray]
Operations = dict[str, Callable[..., Any]]

RNG = np.random.default_rng(0)


def drawn(*shape: int) -> np.ndarray:
    return RNG.normal(0, 2, shape).astype(np.float32)


def as_output(value: Any) -> Any:
    """Core ML has no outputs of booleans."""
    return mb.cast(x=value, dtype="int32") if value.dtype == types.bool else value


def run(folder: Path, operations: Operations, *inputs: np.ndarray, **options: Any) -> Results:
    """What each of `operations` makes of the same inputs, in one program; its first is named x, its second y."""
    if len(inputs) == 1:

        def build(x: Any) -> Any:
            return tuple(as_output(write(x)) for write in operations.values())
    else:

        def build(x: Any, y: Any) -> Any:  # type: ignore[misc]
            return tuple(as_output(write(x, y)) for write in operations.values())

    path = from_mil(folder / "m.mlpackage", build, *(array.shape for array in inputs), **options)
    results = load(path, threads=1).predict(dict(zip("xy", inputs, strict=False)))
    return dict(zip(operations, results.values(), strict=True))


def all_close(results: Results, references: Results, *, tolerance: float = 1e-5) -> None:
    assert results.keys() == references.keys()
    for name, reference in references.items():
        np.testing.assert_allclose(results[name], reference, rtol=tolerance, atol=tolerance, err_msg=name)


# --- integers

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


def test_reducing_no_axis_leaves_each_element_by_itself(tmp_path: Path) -> None:
    axes = np.zeros(0, np.int32)
    x = drawn(2, 3)
    operations: Operations = {
        "square": lambda x: mb.reduce_sum_square(x=x, axes=axes, keep_dims=True),
        "sum": lambda x: mb.reduce_sum(x=x, axes=axes),
    }
    all_close(run(tmp_path, operations, x), {"square": x**2, "sum": x})


# --- floats, booleans, casts


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


def test_activations_per_channel(tmp_path: Path) -> None:
    x = drawn(2, 3, 4, 4) * 20
    alpha, beta = drawn(3), drawn(3)
    operations: Operations = {
        "softplus_parametric": lambda x: mb.softplus_parametric(x=x, alpha=alpha, beta=beta),
        "softplus": lambda x: mb.softplus(x=mb.mul(x=x, y=10.0)),  # beyond what exp holds
    }
    channel = (3, 1, 1)
    references = {
        "softplus_parametric": alpha.reshape(channel) * np.logaddexp(0, beta.reshape(channel) * x),
        "softplus": np.logaddexp(0, 10 * x),
    }
    all_close(run(tmp_path, operations, x), references)


# --- matrix products


def test_matrix_products_of_every_rank_and_type(tmp_path: Path) -> None:
    x, y = drawn(3, 1, 4, 5), drawn(2, 5, 6)
    whole = np.arange(24, dtype=np.int32).reshape(6, 4)
    other, vector = drawn(4, 6), drawn(5)
    operations: Operations = {
        "broadcast": lambda x, y: mb.matmul(x=x, y=y),
        "both transposed": lambda x, y: mb.matmul(x=y, y=x, transpose_x=True, transpose_y=True),
        "vector": lambda x, y: mb.matmul(x=vector, y=y),
        "integers transposed": lambda x, y: mb.matmul(x=y, y=whole.T.copy(), transpose_y=True),
        "linear of integers": lambda x, y: mb.linear(x=y, weight=whole.T, bias=np.array([1, 2, 3, 4], np.int32)),
        "linear of a vector": lambda x, y: mb.linear(x=mb.reduce_sum(x=y, axes=[0, 1]), weight=other),
    }
    results = run(tmp_path, operations, x, y)
    references = {
        "broadcast": x @ y,
        "both transposed": y.swapaxes(1, 2) @ x.swapaxes(2, 3),
        "vector": vector @ y,
        "integers transposed": y @ whole,
        "linear of integers": y @ whole + [1, 2, 3, 4],
        "linear of a vector": y.sum((0, 1)) @ other.T,
    }
    all_close(results, references, tolerance=1e-4)


def test_integers_by_fractions_are_refused(tmp_path: Path) -> None:
    half = np.full((2, 2), 0.5, np.float32)
    path = from_mil(tmp_path / "m.mlpackage", lambda x: mb.matmul(x=x, y=half), (1, 2), dtype=types.int32)
    with pytest.raises(UnsupportedOperationError, match="by fractions"):
        load(path)


@pytest.mark.parametrize(
    ("equation", "x_shape", "y_shape"),
    [
        ("nchw,nwhu->nchu", (2, 3, 4, 5), (2, 5, 4, 6)),
        ("bOat, btaq -> bOaq", (1, 3, 4, 5), (2, 5, 1, 6)),
        ("vnm,mno->vno", (3, 1, 5), (5, 4, 2)),
    ],
)
def test_einsum_is_numpys(equation: str, x_shape: Sequence[int], y_shape: Sequence[int], tmp_path: Path) -> None:
    x, y = drawn(*x_shape), drawn(*y_shape)
    plain = equation.replace(" ", "")
    results = run(tmp_path, {"einsum": lambda x, y: mb.einsum(values=(x, y), equation=plain)}, x, y)
    all_close(results, {"einsum": np.einsum(plain, x, y)})


# --- convolution


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_convolution_with_computed_weights_and_bias(spatial: int, tmp_path: Path) -> None:
    x, weight = drawn(1, 4, *[6, 7, 8][:spatial]), drawn(6, 2, *[3, 2, 2][:spatial])
    strides, pad = [2, 1, 3][:spatial], [1, 2, 0, 1, 2, 2][: 2 * spatial]

    def conv(x: Any, y: Any) -> Any:
        bias = mb.reduce_sum(x=y, axes=list(range(1, spatial + 2)))
        return mb.conv(x=x, weight=y, bias=bias, strides=strides, pad_type="custom", pad=pad, groups=2)

    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[spatial - 1]
    ends = [end for axis in reversed(range(spatial)) for end in pad[2 * axis : 2 * axis + 2]]  # torch: the last first
    padded = functional.pad(torch.from_numpy(x), ends)
    w = torch.from_numpy(weight)
    reference = convolve(padded, w, w.flatten(1).sum(1), strides, groups=2)
    all_close(run(tmp_path, {"conv": conv}, x, weight), {"conv": reference.numpy()}, tolerance=1e-4)


def test_convolution_with_quantized_weights(tmp_path: Path) -> None:
    x, weight = drawn(1, 2, 5, 5), RNG.integers(0, 255, (3, 2, 2, 2)).astype(np.uint8)
    scale = np.array([0.1, 0.2, 0.3], np.float32)
    operations: Operations = {
        "conv_quantized": lambda x: mb.conv_quantized(
            x=x, weight=weight, quantization_type="linear", quant_scale=scale, quant_bias=np.float32(-3)
        )
    }
    dense = torch.from_numpy(weight * scale.reshape(3, 1, 1, 1) - 3)
    reference = functional.conv2d(torch.from_numpy(x), dense).numpy()
    all_close(run(tmp_path, operations, x, opset=ct.target.iOS15), {"conv_quantized": reference}, tolerance=1e-4)


def fitted(full: np.ndarray, sizes: Sequence[int], before: Sequence[int]) -> np.ndarray:
    """`sizes` elements of each spatial dimension from `before` on, zeros where there are none."""
    for axis, (size, first) in enumerate(zip(sizes, before, strict=True), start=2):
        full = np.take(full, range(first, min(full.shape[axis], first + size)), axis)
        missing = [(0, size - full.shape[axis] if other == axis else 0) for other in range(full.ndim)]
        full = np.pad(full, missing)
    return full


# Options of conv_transpose, then the output's sizes and what is cut off before it, for x of [5] or [5, 4] and a kernel
# of [4] or [4, 2]. Without cutting, stride 3 makes 16 and 11 elements, stride 2 makes 12 and 8.
CROPS: dict[str, tuple[dict[str, Any], list[int], list[int]]] = {
    "valid": ({"strides": [3, 3]}, [16, 11], [0, 0]),
    "valid, longer": ({"strides": [3, 3], "output_shape": [18, 12]}, [18, 12], [0, 0]),
    "custom": ({"strides": [3, 3], "pad_type": "custom", "pad": [1, 2, 3, 0]}, [13, 8], [1, 3]),
    "custom, longer": (
        {"strides": [3, 3], "pad_type": "custom", "pad": [1, 2, 3, 0], "output_shape": [14, 10]},
        [14, 10],
        [1, 3],
    ),
    # The kernel of 4 overlaps by 2 with stride 2; that of 2 not at all, and leaves a gap with stride 3.
    "same": ({"strides": [2, 3], "pad_type": "same"}, [10, 12], [1, 0]),
    "same, shorter": ({"strides": [2, 3], "pad_type": "same", "output_shape": [9, 10]}, [9, 10], [1, 0]),
}


@pytest.mark.parametrize("spatial", [1, 2])
def test_transposed_convolution_cuts_as_pad_type_and_output_shape_say(spatial: int, tmp_path: Path) -> None:
    x, weight = drawn(1, 4, *[5, 4][:spatial]), drawn(4, 3, *[4, 2][:spatial])
    bias = drawn(6)
    operations: Operations = {}
    references = {}
    for name, (options, sizes, before) in CROPS.items():
        cut = {key: value[:spatial] if key == "strides" else value for key, value in options.items()}
        if "pad" in cut:
            cut["pad"] = cut["pad"][: 2 * spatial]
        if "output_shape" in cut:
            cut["output_shape"] = [1, 6, *cut["output_shape"][:spatial]]
        operations[name] = lambda x, cut=cut: mb.conv_transpose(x=x, weight=weight, bias=bias, groups=2, **cut)
        transpose = (functional.conv_transpose1d, functional.conv_transpose2d)[spatial - 1]
        full = transpose(torch.from_numpy(x), torch.from_numpy(weight), None, cut["strides"], groups=2).numpy()
        references[name] = fitted(full, sizes[:spatial], before[:spatial]) + bias.reshape(6, *[1] * spatial)
    all_close(run(tmp_path, operations, x), references, tolerance=1e-4)


def test_transposed_convolution_in_three_dimensions_with_computed_weights(tmp_path: Path) -> None:
    x, weight = drawn(1, 2, 3, 4, 3), drawn(2, 3, 2, 3, 2)
    options = {"strides": [2, 1, 2], "dilations": [1, 2, 1]}
    pad = [1, 1, 2, 2, 0, 0]
    results = run(
        tmp_path,
        {"custom": lambda x, y: mb.conv_transpose(x=x, weight=y, pad_type="custom", pad=pad, **options)},
        x,
        weight,
    )
    tensors = torch.from_numpy(x), torch.from_numpy(weight)
    reference = functional.conv_transpose3d(*tensors, None, options["strides"], pad[::2], 0, 1, options["dilations"])
    all_close(results, {"custom": reference.numpy()}, tolerance=1e-4)


# --- pooling


def pooled(x: np.ndarray, kernel: int, stride: int, pad: Sequence[int], what: str, *, ceil_mode: bool) -> np.ndarray:
    """Along the last dimension, window by window as the definition has it."""
    size, (before, after) = x.shape[-1], pad
    steps = (size + before + after - kernel) / stride
    count = math.ceil(steps) + 1 if ceil_mode else math.floor(steps) + 1
    if ceil_mode and (count - 1) * stride >= size + before and before + after > 0:
        count -= 1
    results = []
    for start in range(-before, -before + count * stride, stride):
        window = x[..., max(0, start) : max(0, start + kernel)]
        included = min(start + kernel, size + after) - start
        results.append(
            {
                "max": lambda w: w.max(-1, initial=-np.inf),
                "l2": lambda w: np.sqrt((w**2).sum(-1)),
                "average": lambda w, n=included: w.sum(-1) / n,
                "average of the input": lambda w: w.sum(-1) / max(1, w.shape[-1]),
            }[what](window)
        )
    return np.stack(results, -1)


def pool(what: str, x: Any, kernel: int, stride: int, pad: Sequence[int], *, ceil_mode: bool) -> Any:
    options = {"kernel_sizes": [kernel], "strides": [stride], "pad_type": "custom", "pad": pad, "ceil_mode": ceil_mode}
    if what in ("max", "l2"):
        return getattr(mb, f"{what}_pool")(x=x, **options)
    return mb.avg_pool(x=x, exclude_padding_from_average=what != "average", **options)


def test_pools_in_ceil_mode_and_with_uneven_padding(tmp_path: Path) -> None:
    x = drawn(1, 2, 8)
    cases = [(3, 2, (1, 1), True), (3, 3, (0, 0), True), (2, 3, (1, 1), True), (5, 4, (2, 2), True)]
    cases += [(3, 2, (2, 1), False), (3, 4, (0, 2), False), (3, 3, (0, 3), False)]
    operations: Operations = {}
    references = {}
    for what in ("max", "l2", "average", "average of the input"):
        for kernel, stride, pad, ceil_mode in cases:
            name = f"{what} {kernel} {stride} {pad} {ceil_mode}"
            operations[name] = lambda x, what=what, k=kernel, s=stride, p=pad, c=ceil_mode: pool(
                what, x, k, s, p, ceil_mode=c
            )
            references[name] = pooled(x, kernel, stride, pad, what, ceil_mode=ceil_mode)
    all_close(run(tmp_path, operations, x), references)


def test_pools_with_padding_as_large_as_the_kernel(tmp_path: Path) -> None:
    x = drawn(1, 2, 5)
    operations: Operations = {
        "l2": lambda x: pool("l2", x, 2, 1, (2, 3), ceil_mode=False),
        "average": lambda x: pool("average", x, 2, 1, (2, 3), ceil_mode=False),
    }
    references = {name: pooled(x, 2, 1, (2, 3), name, ceil_mode=False) for name in operations}
    all_close(run(tmp_path, operations, x), references)


@pytest.mark.parametrize("what", ["max", "average of the input"])
def test_windows_of_padding_alone_are_refused(what: str, tmp_path: Path) -> None:
    path = from_mil(tmp_path / "m.mlpackage", lambda x: pool(what, x, 2, 1, (2, 0), ceil_mode=False), (1, 1, 5))
    with pytest.raises(UnsupportedOperationError, match="outside the input"):
        load(path)


def test_windows_that_ceil_mode_puts_outside_the_input_are_refused(tmp_path: Path) -> None:
    path = from_mil(tmp_path / "m.mlpackage", lambda x: pool("average", x, 1, 3, (0, 0), ceil_mode=True), (1, 1, 2))
    with pytest.raises(UnsupportedOperationError, match="outside the input"):
        load(path)


# --- normalization


def layer_normal(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def test_layer_norm_over_any_axes(tmp_path: Path) -> None:
    x = drawn(2, 3, 4, 5)
    gamma, beta, last = drawn(3, 5), drawn(3, 5), drawn(5)
    operations: Operations = {
        "all": lambda x: mb.layer_norm(x=x, axes=[0, 1, 2, 3]),
        "last": lambda x: mb.layer_norm(x=x, axes=[-1], gamma=last, beta=-last, epsilon=np.float32(0.1)),
        "channels": lambda x: mb.layer_norm(x=x, axes=[1]),
        "apart": lambda x: mb.layer_norm(x=x, axes=[-1, 1], gamma=gamma, beta=beta),
        "leading": lambda x: mb.layer_norm(x=x, axes=[0, 1]),
    }
    references = {
        "all": layer_normal(x, (0, 1, 2, 3), 1e-5),
        "last": layer_normal(x, (3,), 0.1) * last - last,
        "channels": layer_normal(x, (1,), 1e-5),
        "apart": layer_normal(x, (1, 3), 1e-5) * gamma[:, None] + beta[:, None],
        "leading": layer_normal(x, (0, 1), 1e-5),
    }
    all_close(run(tmp_path, operations, x), references)


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 3, 5), (2, 4, 3, 2, 2)])
def test_normalization_of_every_rank(shape: tuple[int, ...], tmp_path: Path) -> None:
    x, gamma, beta = drawn(*shape), drawn(4), drawn(4)
    tensor = torch.from_numpy(x)
    spatial = tuple(range(2, len(shape)))
    per_channel = (4, *[1] * len(spatial))
    operations: Operations = {
        "instance_norm": lambda x: mb.instance_norm(x=x, gamma=gamma, beta=beta, epsilon=np.float32(0.01)),
        "instance_norm, plain": lambda x: mb.instance_norm(x=x),
        "l2_norm": lambda x: mb.l2_norm(x=x, epsilon=np.float32(0.5)),
    }
    instance = layer_normal(x, spatial, 0.01)
    references = {
        "instance_norm": instance * gamma.reshape(per_channel) + beta.reshape(per_channel),
        "instance_norm, plain": layer_normal(x, spatial, 1e-5),
        "l2_norm": x / np.sqrt((x**2).sum((-3, -2, -1), keepdims=True) + 0.5),
    }
    for size in (1, 2, 3, 6):
        name = f"local_response_norm {size}"
        operations[name] = lambda x, size=size: mb.local_response_norm(
            x=x, size=size, alpha=np.float32(0.5), beta=np.float32(0.6), k=np.float32(1.5)
        )
        references[name] = functional.local_response_norm(tensor, size, alpha=0.5, beta=0.6, k=1.5).numpy()
    all_close(run(tmp_path, operations, x), references)


# --- attention


def test_attention_with_and_without_a_mask(tmp_path: Path) -> None:
    query, key = drawn(2, 3, 4, 8), drawn(2, 3, 5, 8)
    mask = drawn(4, 5)
    operations: Operations = {
        "plain": lambda q, k: mb.scaled_dot_product_attention(query=q, key=k, value=k),
        "of another width": lambda q, k: mb.scaled_dot_product_attention(
            query=q, key=k, value=mb.slice_by_size(x=k, begin=[0, 0, 0, 2], size=[2, 3, 5, 3])
        ),
        "floats": lambda q, k: mb.scaled_dot_product_attention(query=q, key=k, value=k, attn_mask=mask),
        "booleans": lambda q, k: mb.scaled_dot_product_attention(query=q, key=k, value=k, attn_mask=mask[:1] > 0),
    }
    q, k = torch.from_numpy(query), torch.from_numpy(key)
    attend = functional.scaled_dot_product_attention
    references = {
        "plain": attend(q, k, k),
        "of another width": attend(q, k, k[..., 2:5]),
        "floats": attend(q, k, k, torch.from_numpy(mask)),
        "booleans": attend(q, k, k, torch.from_numpy(mask[:1] > 0)),
    }
    results = run(tmp_path, operations, query, key, opset=ct.target.iOS18)
    all_close(results, {name: reference.numpy() for name, reference in references.items()})


# --- batches


def test_a_batch_is_what_its_samples_are_one_by_one(tmp_path: Path) -> None:
    weight, mask = drawn(4, 2, 3, 3), drawn(6, 6)

    def build(x: Any) -> Any:
        return (
            mb.conv_transpose(x=x, weight=weight, strides=[2, 2], pad_type="same"),
            mb.l2_pool(x=x, kernel_sizes=[2, 2], pad_type="valid"),
            mb.avg_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1] * 4, ceil_mode=True),
            mb.layer_norm(x=x, axes=[1]),
            mb.layer_norm(x=x, axes=[1, 2, 3]),
            mb.instance_norm(x=x),
            mb.l2_norm(x=x),
            mb.local_response_norm(x=x, size=4),
            mb.softplus_parametric(x=x, alpha=mask[0, :4], beta=mask[1, :4]),
            mb.einsum(values=(x, mb.transpose(x=x, perm=[0, 3, 2, 1])), equation="nchw,nwhu->nchu"),
            mb.scaled_dot_product_attention(query=x, key=x, value=x, attn_mask=mask),
            mb.matmul(x=x, y=x, transpose_y=True),
            mb.floor_div(x=x, y=mask),
        )

    path = from_mil(tmp_path / "m.mlpackage", build, (1, 4, 6, 6), opset=ct.target.iOS18)
    model = load(path, threads=1)
    assert model.any_batch
    x = drawn(3, 4, 6, 6)
    batch = model.predict_batch({"x": x})
    for i in range(3):
        single = model.predict({"x": x[i : i + 1]})
        all_close({name: values[i : i + 1] for name, values in batch.items()}, single)


@pytest.mark.parametrize(
    "build",
    [
        lambda x: mb.layer_norm(x=x, axes=[0, 1, 2]),
        lambda x: mb.l2_norm(x=x),
        lambda x: mb.einsum(values=(x, x), equation="chw,whu->chu"),
        lambda x: mb.conv(x=np.ones((1, 3, 4), np.float32), weight=x),
    ],
)
def test_what_mixes_samples_runs_one_by_one(build: Callable[..., Any], tmp_path: Path) -> None:
    shape = (1, 3, 1)
    model = load(from_mil(tmp_path / "m.mlpackage", build, shape), threads=1)
    assert not model.any_batch
