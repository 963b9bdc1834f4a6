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
