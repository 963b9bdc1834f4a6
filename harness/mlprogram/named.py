"""What lies where a `.mlpackage` or `.aimodel` is expected, named for what it is: each has a cure of its own."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.specification import new_specification
from coreml_prune_bench.models.pointers import pointer_problem

MLPACKAGE, AIMODEL = ".mlpackage", ".aimodel"
BYTECODE = "main.mlirb"
"""The program of a `.aimodel`."""

_EXPECTED = "expected the folder of a .mlpackage or .aimodel"
_NEURAL_NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")
PIPELINES = ("pipeline", "pipelineClassifier", "pipelineRegressor")
_RUN = ("mlProgram", "nonMaximumSuppression")
"""Of pipelines, those of these models are run."""
_CONVERT_AGAIN = "convert the network again from where it was trained, with coremltools' convert_to='mlprogram'"
_MOST_MODELS = 1_000
"""Of a pipeline and those within it that are told."""
_MOST_MLMODEL_BYTES = 512 << 20
"""A larger one is named by its ending alone."""

_OTHER_FILES = {
    ".onnx": "an ONNX model",
    ".pb": "a TensorFlow graph",
    ".tflite": "a TensorFlow Lite model",
    ".h5": "a Keras model",
    ".keras": "a Keras model",
    ".pt": "a file of PyTorch's",
    ".pth": "a file of PyTorch's",
    ".pt2": "a file of PyTorch's",
    ".safetensors": "a file of weights",
}


def refuse_pointer(path: Path) -> None:
    """Raise PackageError where a file of a package was never fetched by Git LFS or git-annex."""
    if problem := pointer_problem(path):
        raise PackageError(f"{path}: {problem}")


def file_problem(path: Path) -> str:
    """What the file at `path`, given in place of a package, is; to stand behind its name."""
    if problem := pointer_problem(path):
        return problem
    package = next((parent for parent in path.absolute().parents if _is_package(parent)), None)
    if package is not None:
        return f"is a file of a package, {_EXPECTED}; give {package}"
    compiled = next((parent for parent in path.absolute().parents if _is_compiled(parent)), None)
    if compiled is not None:
        return f"is a file of a compiled model; {_of_compiled()}"
    if path.suffix == ".mlmodel":
        return f"is {_of_mlmodel(path)}"
    if path.suffix in _OTHER_FILES:
        return f"is {_OTHER_FILES[path.suffix]}, {_EXPECTED}; convert it first"
    if zipfile.is_zipfile(path):
        return f"is an archive, {_EXPECTED}; unpack it first"
    return f"is a file, {_EXPECTED}; unpack an archive first"


def folder_problem(folder: Path) -> str:
    """What the folder at `folder`, which has no manifest, is; to stand behind its name."""
    if _is_compiled(folder):
        return f"is a compiled model; {_of_compiled()}"
    package = next((parent for parent in folder.absolute().parents if _is_package(parent)), None)
    if package is not None:
        return f"is a part of a package; give {package}"
    try:
        held = sorted(entry.name for entry in folder.iterdir() if _is_package(entry))
    except OSError:
        held = []
    if held:
        which = f"{held[0]}; give that" if len(held) == 1 else f"{len(held)} such as {held[0]}; give one of them"
        return f"no package, but it holds {which}"
    if folder.suffix == MLPACKAGE and not is_aimodel(folder):
        return "not a .mlpackage, expected a folder with a Manifest.json"
    if folder.suffix == AIMODEL:
        return f"a .aimodel without its program {BYTECODE}"
    if is_aimodel(folder):
        return f"a .aimodel, which Core ML does not read; call it {folder.stem}{AIMODEL}"
    return f"neither a .mlpackage nor a .aimodel: it has no Manifest.json and no {BYTECODE}"


def type_problem(spec: Any) -> str:
    """What is wrong with a model specification that is not of type mlProgram, and what to do.

    Nothing, and "", where it is a pipeline of models that are run.
    """
    kind = spec.WhichOneof("Type")
    if kind is None:
        return "holds a model of no type, expected an ML program"
    if kind not in PIPELINES:
        return f"holds a model of type {kind}, expected an ML program{_cure(kind)}"
    parts = _parts(spec)
    others = [name for name in parts if name not in _RUN]
    if parts and not others:
        return ""
    told = models_told(spec)
    if "mlProgram" in parts:
        rest = " and ".join(others)
        return (
            f"holds a pipeline of {told}; of pipelines, those of {' and '.join(_RUN)} are run: export it without {rest}"
        )
    return f"holds a pipeline of {told}, expected an ML program alone{_cure(*parts)}"


def models_of(spec: Any) -> Any:
    """The models of a pipeline, in their order."""
    kind = spec.WhichOneof("Type")
    inner = getattr(spec, kind)
    return (inner if kind == "pipeline" else inner.pipeline).models


def models_told(spec: Any) -> str:
    """The models of a pipeline in words: "mlProgram + nonMaximumSuppression"."""
    parts = _parts(spec).items()
    return " + ".join(name if count == 1 else f"{count} {name}" for name, count in parts) or "no models"


def _cure(*kinds: str) -> str:
    if any(kind in _NEURAL_NETWORKS for kind in kinds):
        return f"; it is in the older neural network format: {_CONVERT_AGAIN}"
    return "; coremltools makes none of such a model"


def _parts(spec: Any) -> Counter[str]:
    """The types of the models of a pipeline in their order, those of pipelines within it among them."""
    found: Counter[str] = Counter()
    waiting = [spec]
    while waiting and found.total() < _MOST_MODELS:
        model = waiting.pop()
        kind = model.WhichOneof("Type")
        if kind not in PIPELINES:
            found[str(kind)] += 1
            continue
        waiting += reversed(models_of(model))
    return found


def _of_mlmodel(path: Path) -> str:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    form = "an .mlmodel, Core ML's older single file"
    spec = new_specification()
    try:
        if not path.stat().st_size:
            return f"called an .mlmodel, but an empty file; {_EXPECTED}"
        if path.stat().st_size <= _MOST_MLMODEL_BYTES:
            spec.ParseFromString(path.read_bytes())
    except (DecodeError, OSError):
        return f"called an .mlmodel, but no Core ML model specification; {_EXPECTED}"
    if spec.WhichOneof("Type") is None:
        return f"{form}; {_EXPECTED} with an ML program"
    problem = "" if spec.WhichOneof("Type") == "mlProgram" else type_problem(spec)
    if not problem:
        return "the specification of an ML program without its weights; give the folder of the .mlpackage that it is of"
    return f"{form}: {problem}"


def is_aimodel(folder: Path) -> bool:
    """Whether it holds the program of a `.aimodel`; not whether that can be read."""
    return os.path.lexists(folder / BYTECODE)


def is_mlpackage(folder: Path) -> bool:
    """Whether it has a manifest and data, as a `.mlpackage` does; not whether those can be read."""
    # Data as well, because web pages have a manifest.json, and some file systems do not tell the two apart.
    return (folder / "Manifest.json").is_file() and (folder / "Data").is_dir()


def _is_package(folder: Path) -> bool:
    return is_mlpackage(folder) or is_aimodel(folder)


def _is_compiled(folder: Path) -> bool:
    return folder.suffix == ".mlmodelc" or (folder / "coremldata.bin").is_file()


def _of_compiled() -> str:
    return "it cannot be turned back: give the .mlpackage that it was compiled from"
