"""Weight files, written by coremltools' own writer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import types
from coremltools.libmilstoragepython import _BlobStorageWriter

from coreml_prune_bench.mlprogram.values import Stored, TensorType
from coreml_prune_bench.mlprogram.weights import Weights

WRITERS = {
    np.float16: "write_fp16_data",
    np.float32: "write_float_data",
    np.uint8: "write_uint8_data",
    np.int8: "write_int8_data",
    np.int16: "write_int16_data",
    np.uint16: "write_uint16_data",
    np.int32: "write_int32_data",
    np.uint32: "write_uint32_data",
}
MIL = {np.float16: "fp16", np.float32: "fp32"}


@pytest.mark.parametrize("dtype", WRITERS)
def test_stored_constant_keeps_its_elements_and_type(dtype: Any, tmp_path: Path) -> None:
    array: np.ndarray = np.array([[0, 1, 100], [7, 5, 3]]).astype(dtype)
    flat = array.ravel().view(np.uint16) if dtype == np.float16 else array.ravel()
    writer = _BlobStorageWriter(str(tmp_path / "weight.bin"))
    offset = getattr(writer, WRITERS[dtype])(np.ascontiguousarray(flat))
    del writer
    type_ = TensorType(MIL.get(dtype, np.dtype(dtype).name), (2, 3))
    result = Weights(tmp_path, tmp_path).array(Stored(type_, "@model_path/weight.bin", offset))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("dtype", ["int4", "uint1", "uint2", "uint3", "uint4", "uint6", "int8", "uint8"])
def test_elements_of_less_than_a_byte(dtype: str, tmp_path: Path) -> None:
    type_ = types.string_to_builtin(dtype)
    limits = types.type_mapping.builtin_to_range(type_)
    random = np.random.default_rng(0)
    writer = _BlobStorageWriter(str(tmp_path / "weight.bin"))
    written = {}
    for size in (1, 7, 8, 9, 101):
        values = random.integers(limits.low, limits.high + 1, size).astype(types.nptype_from_builtin(type_))
        written[getattr(writer, f"write_{dtype}_data")(values)] = values
    del writer  # closes the file
    weights = Weights(tmp_path, tmp_path)
    for offset, values in written.items():
        stored = Stored(TensorType(dtype, values.shape), "@model_path/weight.bin", offset)
        np.testing.assert_array_equal(weights.array(stored), values)
