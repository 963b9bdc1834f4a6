"""A package as an ONNX file: what the portable runtime runs, for other tools to read.

The file is complete or not there: it is written beside its place, checked, and moved.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import checker, helper

from coreml_prune_bench.aimodel.programs import read_program
from coreml_prune_bench.core.errors import BenchError, PackageError
from coreml_prune_bench.core.files import refuse_file
from coreml_prune_bench.records.predictions import Precision
from coreml_prune_bench.runtimes.portable.engine import ONNX_RUNTIME_ERRORS, start
from coreml_prune_bench.runtimes.portable.model_file import self_contained
from coreml_prune_bench.runtimes.portable.translate import Translation, translate

_MOST_BYTES_OF_A_FILE = 2_000_000_000
"""Protobuf ends at 2 GiB. A larger model's weights stand in a file beside it."""

_INVALID: tuple[type[Exception], ...] = (checker.ValidationError, *ONNX_RUNTIME_ERRORS)


@dataclass(frozen=True)
class Exported:
    """The files that were written, the model's first, and the ONNX model's inputs and outputs in words."""

    files: tuple[Path, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    classes: int | None


def export_onnx(
    package: Path, out: Path, *, function: str | None = None, precision: Precision = "float32", force: bool = False
) -> Exported:
    """Write the package's function, for its declared (default) shapes, to `out`.

    Raises BenchError where `out` cannot be written or, without `force`, exists; PackageError as loading does.
    """
    refuse_file(out, str(out), replace=force)
    data = out.with_name(f"{out.name}.data")
    program = read_program(package, function)
    translation = translate(program, {f.name: f.default_shape for f in program.inputs}, precision)
    with tempfile.TemporaryDirectory(prefix=".export-onnx.", dir=out.parent) as name:
        unfinished = Path(name) / out.name
        _write(translation, unfinished, data.name)
        _check(package, unfinished)
        files = [place for place in (data, out) if (Path(name) / place.name).exists()]
        if data in files and data.exists() and not force:
            raise BenchError(f"{data} exists; --force replaces it")
        for place in files:
            os.replace(Path(name) / place.name, place)
    classifier = translation.interface.classifier
    return Exported(
        files=tuple(reversed(files)),
        inputs=tuple(_worded(value) for value in translation.model.graph.input),
        outputs=tuple(_worded(value) for value in translation.model.graph.output),
        classes=len(classifier.classes) if classifier else None,
    )


def _write(translation: Translation, path: Path, data: str) -> None:
    model = self_contained(translation)
    if classifier := translation.interface.classifier:
        helper.set_model_props(model, {"classes": json.dumps(classifier.classes)})
    weights = sum(array.nbytes for array in translation.weights.values())
    if weights + translation.model.ByteSize() < _MOST_BYTES_OF_A_FILE:
        onnx.save_model(model, str(path))
    else:
        onnx.save_model(model, str(path), save_as_external_data=True, location=data)


def _check(package: Path, path: Path) -> None:
    """By ONNX's rules, and that ONNX Runtime takes it."""
    try:
        checker.check_model(str(path))
        start(path, threads=1, most_bytes=None)
    except _INVALID as error:
        why = " ".join(str(error).split())
        raise PackageError(f"{package}: its translation is not a valid ONNX model: {why}") from error


def _worded(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    sizes = [d.dim_param or str(d.dim_value) for d in tensor.shape.dim]
    return f"{value.name}: {dtype} [{', '.join(sizes)}]"
