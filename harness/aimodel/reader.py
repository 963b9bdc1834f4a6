"""Read a `.aimodel` into the same small typed `Program` that an ML program becomes.

What is stored is told as an ML program tells it (`const`, `constexpr_sparse_to_dense`, ...), so that sparsity, sizes
and decompression have one reading. What is computed keeps its meaning, and its name, under `coreai.`. Graphs that are
invoked are written out where they are. Integers of 64 bits are read as 32, in which everything is computed here.
Whatever a package holds, the one error that is raised is PackageError.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.aimodel.constants import UnpackedWeights
from coreml_prune_bench.aimodel.operations import Writer
from coreml_prune_bench.aimodel.process import DAMAGED, unpacked
from coreml_prune_bench.aimodel.unpack import CONSTANTS
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.features import ILLEGIBLE, check_name
from coreml_prune_bench.mlprogram.named import BYTECODE, refuse_pointer
from coreml_prune_bench.mlprogram.program import Feature, Program
from coreml_prune_bench.mlprogram.values import NamedType, numpy_name
from coreml_prune_bench.mlprogram.weights import path_inside

HASH, METADATA = "main.hash", "metadata.json"
DEFINED = "creatorDefinedMetadata"
"""In the metadata, what the package's author defines."""
DEPLOYMENT_TARGET = "iOS27 / macOS27"
OWN_METADATA = "coreml-prune-bench"
"""Under it, in what the author defines: `image`, the input that takes pixels, and `weights`, the
name of each weight by the number of the constant that has it."""

_MAIN = "main"
_MOST_METADATA_BYTES = 4 << 20
_MOST_BYTECODE_BYTES = 4 << 30


def read(path: str | Path, function: str | None = None) -> Program:
    """Read a function (None: `main`, or the only one) of the `.aimodel` at `path`.

    Raises PackageError where it cannot be read, BenchError where Apple's reader is not installed.
    """
    package = Path(path)
    bytecode = path_inside(package, package / BYTECODE, BYTECODE)
    refuse_pointer(bytecode)
    if (size := bytecode.stat().st_size) > _MOST_BYTECODE_BYTES:
        raise PackageError(f"{package}: {BYTECODE} has {size:,} bytes, more than {_MOST_BYTECODE_BYTES >> 30} GiB")
    _check_hash(package, bytecode)
    own = _own_metadata(package)
    with tempfile.TemporaryDirectory(prefix="aimodel-") as folder:
        written = unpacked(package, bytecode, Path(folder))
        constants = Path(folder) / CONSTANTS
        # Mapped: the file's pages live on when its name is gone.
        stored = np.memmap(constants, np.uint8, mode="r") if constants.stat().st_size else np.empty(0, np.uint8)
    try:
        return _program(package, bytecode, written, stored, own, function)
    except (*ILLEGIBLE, AttributeError) as error:
        why = " ".join(str(error).split())
        raise PackageError(f"{package}: its program cannot be read: {why}") from error


def _program(
    package: Path, bytecode: Path, written: dict[str, Any], stored: np.ndarray, own: dict[str, Any], wanted: str | None
) -> Program:
    graphs = {graph["name"]: graph for graph in written["graphs"] if graph["name"] is not None}
    public = [name for name, graph in graphs.items() if not graph["private"]]
    for function in public:
        check_name(package, function)
    name = wanted or (_MAIN if _MAIN in public or len(public) != 1 else public[0])
    if name not in public:
        raise PackageError(f"{package}: no function {name!r}, expected one of {', '.join(sorted(public)) or 'none'}")
    graph = graphs[name]
    writer = Writer(package, graphs, stored, own.get("weights", {}))
    arguments = writer.arguments(graph)
    writer.write(graph, [argument.name for argument in arguments])
    results = writer.results(graph)
    image = own.get("image")
    return Program(
        package=package,
        function=name,
        functions=tuple(sorted(public)),
        specification_version=0,
        opset=DEPLOYMENT_TARGET,
        inputs=tuple(
            _image(argument) if argument.name == image else _feature(argument, entry["type"])
            for argument, entry in zip(arguments, graph["inputs"], strict=True)
        ),
        outputs=tuple(_feature(result, source) for result, source in results),
        states=(),
        arguments=tuple(arguments),
        operations=tuple(writer.operations),
        results=tuple(result.name for result, _ in results),
        weights=UnpackedWeights(package, package, bytecode=bytecode, stored=stored),
    )


def _feature(value: NamedType, element: str) -> Feature:
    shape = value.type.shape
    sizes = {"si64": "int64", "ui64": "uint64"}
    return Feature(
        name=value.name,
        kind="array",
        shape=shape,
        dtype=sizes.get(element) or numpy_name(value.type.dtype),
        default_shape=tuple(size or 1 for size in shape),
        sizes=tuple((size or 1, size) for size in shape) if None in shape else (),
    )


def _image(value: NamedType) -> Feature:
    """Of our own packages: uint8 [1, 3, H, W], which decoded images are given for."""
    *batch, height, width = value.type.shape if len(value.type.shape) == 4 else (None, None)
    if batch != [1, 3] or height is None or width is None or value.type.dtype != "uint8":
        raise ValueError(f"its image input {value.name!r} is {value.type.dtype} {list(value.type.shape)}")
    shape = (height, width, 3)
    return Feature(value.name, "image", shape, "uint8", color_space="RGB", default_shape=shape)


def _own_metadata(package: Path) -> dict[str, Any]:
    """What this project wrote into the package's metadata; nothing for another's, or where there is none.

    Raises PackageError for what is no metadata: Apple's runtime does not load such a package either.
    """
    path = _beside(package, METADATA)
    if path is None:
        return {}
    if path.stat().st_size > _MOST_METADATA_BYTES:
        raise PackageError(f"{package}: {METADATA} has more than {_MOST_METADATA_BYTES >> 20} MiB; {DAMAGED}")
    try:
        found = json.loads(path.read_bytes())
        defined = found.get(DEFINED, {})
        own = dict(defined.get(OWN_METADATA, {}))
        names = dict(own.get("weights", {}))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PackageError(f"{package}: {METADATA} is not the metadata of a .aimodel; {DAMAGED}") from error
    return {**own, "weights": {number: name for number, name in names.items() if isinstance(name, str)}}


def _check_hash(package: Path, bytecode: Path) -> None:
    """Raises PackageError where the file beside the program has another hash than the program's."""
    path = _beside(package, HASH)
    if path is None:
        return
    expected = hashlib.sha256().digest_size
    if (size := path.stat().st_size) != expected:
        raise PackageError(f"{package}: {HASH} has {size:,} bytes, expected {expected}; {DAMAGED}")
    with bytecode.open("rb") as file:
        if hashlib.file_digest(file, "sha256").digest() != path.read_bytes():
            raise PackageError(f"{package}: {BYTECODE} is not the file that {HASH} is of; {DAMAGED}")


def _beside(package: Path, name: str) -> Path | None:
    """A file that a package can do without; None where it does. Raises PackageError where it is none."""
    if not os.path.lexists(package / name):
        return None
    path = path_inside(package, package / name, name)
    refuse_pointer(path)
    return path
