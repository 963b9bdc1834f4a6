"""A translation as an ONNX model: in a folder, with its weights in a file beside it that is mapped, or all in one.

The weights are written from where they are. Only what is small, which shape inference may want to read, stands in the
model itself: two copies of a large network's weights would not fit into memory, nor into one protobuf message.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from coreml_prune_bench.runtimes.portable.constants import tensor_proto
from coreml_prune_bench.runtimes.portable.interface import INTERFACE_FILE, MODEL_FILE
from coreml_prune_bench.runtimes.portable.translate import Translation

_WEIGHTS = "weights.bin"
_PAGE_BYTES = 4096
"""Every weight begins at a multiple of it, as ONNX advises for files that are mapped."""


def write(translation: Translation, folder: Path) -> None:
    """Write the model, its weights and its interface into the folder, which is there."""
    model = onnx.ModelProto()
    model.CopyFrom(translation.model)
    with (folder / _WEIGHTS).open("wb") as file:
        for name, array in translation.weights.items():
            file.seek(-file.tell() % _PAGE_BYTES, 1)
            model.graph.initializer.append(_reference(name, array, file.tell()))
            try:
                array.tofile(file)
            except OSError as error:  # NumPy tells how much was written, and not why no more
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name) from error
    (folder / MODEL_FILE).write_bytes(model.SerializeToString())
    (folder / INTERFACE_FILE).write_text(translation.interface.to_json(), encoding="utf-8")


def self_contained(translation: Translation) -> onnx.ModelProto:
    """The model with its weights in it."""
    model = onnx.ModelProto()
    model.CopyFrom(translation.model)
    model.graph.initializer.extend(tensor_proto(name, array) for name, array in translation.weights.items())
    return model


def _reference(name: str, array: np.ndarray, offset: int) -> onnx.TensorProto:
    """An initializer whose elements stand in the file of weights."""
    element_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = onnx.TensorProto(name=name, data_type=element_type, dims=array.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", _WEIGHTS), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
