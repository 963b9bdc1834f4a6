"""Values that are quantized while a model runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.optimize import _utils as packing

from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil

# Halves, which round to even, and values beyond the range. [1, 3, 4]
VALUES = np.array([[-9e4, -64.5, -2.5, -1.5], [-0.5, 0.0, 0.5, 1.5], [2.5, 3.25, 63.5, 9e4]], np.float32)[np.newaxis]
PARAMETERS: dict[str, dict[str, Any]] = {
    "a scalar": {"scale": np.float32(0.5)},
    "a scalar and a zero point": {"scale": np.float32(2), "zero_point": 7},
    "rows": {"scale": np.float32([0.5, 1, 2]), "zero_point": [3, 0, 9], "axis": 1},
    "columns": {"scale": np.float32([0.5, 1, 2, 4]), "axis": -1},
    "samples": {"scale": np.float32([0.5]), "zero_point": [1], "axis": 0},
}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_quantized_values(name: str, dtype: str, tmp_path: Path) -> None:
    given = dict(PARAMETERS[name])
    if "zero_point" in given:
        given["zero_point"] = np.array(given["zero_point"], dtype)

    def build(x: Any) -> Any:
        quantized = mb.quantize(input=x, output_dtype=dtype, **given)
        return mb.cast(x=quantized, dtype="int32"), mb.dequantize(input=quantized, **given)

    model = load(from_mil(tmp_path / "m.mlpackage", build, VALUES.shape), threads=1)
    scale, zero_point = (
        packing.promote_rank_to_same_as_data(np.asarray(given.get(key, default)), VALUES, given.get("axis"))
        for key, default in (("scale", 1), ("zero_point", np.zeros_like(given["scale"])))
    )
    quantized = packing.quantize_by_scale_and_zp(VALUES, scale, zero_point, dtype)
    dequantized = packing.dequantize_by_scale_and_zp(quantized, scale, zero_point)
    for result, expected in zip(model.predict({"x": VALUES}).values(), (quantized, dequantized), strict=True):
        np.testing.assert_array_equal(result, expected)
    assert model.any_batch is (name != "samples")
    twice = model.predict_batch({"x": np.concatenate([VALUES, VALUES])}).values()
    for result, expected in zip(twice, (quantized, dequantized), strict=True):
        np.testing.assert_array_equal(result, np.concatenate([expected, expected]))


def test_what_lies_between_is_computed_in_floats(tmp_path: Path) -> None:
    """Large sums of products of a dequantized input, quantized again: ONNX Runtime would compute them in integers,
    which saturate on some processors, and quantize weights that the program does not."""
    draw = np.random.default_rng(0)
    x = draw.uniform(100, 127, (1, 4, 6, 6)).astype(np.float32)
    weight = draw.uniform(0.9, 1.1, (2, 4, 3, 3)).astype(np.float32)
    bias = np.float32([0.31, -0.17])
    matrix = draw.uniform(0.9, 1.1, (6, 6)).astype(np.float32)

    def rounded(value: Any) -> Any:
        return mb.dequantize(
            input=mb.quantize(input=value, output_dtype="uint8", scale=np.float32(32)), scale=np.float32(32)
        )

    def build(x: Any) -> list[Any]:
        whole = mb.dequantize(
            input=mb.quantize(input=x, output_dtype="uint8", scale=np.float32(0.5)), scale=np.float32(0.5)
        )
        return [
            rounded(mb.relu(x=mb.conv(x=whole, weight=weight, bias=bias))),
            mb.conv(x=whole, weight=weight, bias=bias),
            rounded(mb.matmul(x=whole, y=matrix)),
            mb.matmul(x=whole, y=matrix),
            rounded(mb.mul(x=whole, y=whole)),
            mb.avg_pool(x=whole, kernel_sizes=[3, 3], pad_type="valid"),
        ]

    whole = np.rint(x / 0.5).clip(0, 255) * 0.5
    windows = np.lib.stride_tricks.sliding_window_view(whole.astype(np.float64), (3, 3), axis=(2, 3))
    conv = np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]
    product = whole.astype(np.float64) @ matrix
    steps = [np.rint(value / 32).clip(0, 255) * 32 for value in (conv, product, whole * whole)]
    expected = [steps[0], conv, steps[1], product, steps[2], windows.mean(axis=(-2, -1))]
    model = load(from_mil(tmp_path / "m.mlpackage", build, x.shape), threads=1)
    for result, want in zip(model.predict({"x": x}).values(), expected, strict=True):
        np.testing.assert_allclose(result, want, rtol=1e-5)
