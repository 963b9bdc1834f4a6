"""What `compile_model` makes: a `.mlmodelc` folder that holds the package itself, and says that it is ours.

Nothing is compiled: the portable runtime translates when it loads. The folder is there because callers move, copy and
load it. It must never pass for Apple's: it has no `coremldata.bin`, and one that has is refused.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.reproducible import name_items_by_content
from coreml_prune_bench.runtimes.portable.native.mil_text import program_text

SUFFIX = ".mlmodelc"
_MARKER = "portable.json"
_FORMAT = {"compiled_by": "coreml-prune-bench portable runtime", "version": 1}
_AUTHOR = "com.apple.CoreML"
_SPECIFICATION = "model.mlmodel"


def is_compiled(path: Path) -> bool:
    return path.suffix == SUFFIX or (path / _MARKER).is_file()


def compile_model(path: Path) -> Path:
    """Make a compiled folder, in the temporary files, of a `.mlpackage` or of a `.mlmodel` that needs no weights."""
    if not path.exists():
        raise PackageError(f"{path}: no such model")
    if path.is_dir():
        return _finish(path.stem, path)
    return compile_memory(path.read_bytes(), {}, name=path.stem)


def compile_memory(specification: bytes, blobs: Mapping[str, bytes], *, name: str = "model") -> Path:
    """Make a compiled folder of a serialized model. `blobs` has a weight file's content by its path in the model."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"{name}.mlpackage"
        _write_package(package, specification, blobs)
        return _finish(name, package)


def package_in(compiled: Path) -> Path:
    """The package in a compiled folder. Raises PackageError unless the folder is ours."""
    if not compiled.exists():
        raise PackageError(f"{compiled}: no such compiled model")
    marker = compiled / _MARKER
    if not marker.is_file():
        raise PackageError(
            f"{compiled}: not compiled by the portable runtime, which cannot read what Apple's compiler writes; "
            "load the .mlpackage, or compile it here"
        )
    return compiled / str(json.loads(marker.read_text())["package"])


def _finish(name: str, package: Path) -> Path:
    """Copies: the caller may change or remove the package, and what was compiled has to stay as it was."""
    text = program_text(package)  # refuses what is no ML program
    compiled = Path(tempfile.mkdtemp(prefix=f"{name}_", suffix=SUFFIX))
    shutil.copytree(package, compiled / package.name)
    (compiled / "model.mil").write_text(text)
    (compiled / _MARKER).write_text(json.dumps({**_FORMAT, "package": package.name}))
    return compiled


def _write_package(package: Path, specification_: bytes, blobs: Mapping[str, bytes]) -> None:
    data = package / "Data" / _AUTHOR
    data.mkdir(parents=True)
    (data / _SPECIFICATION).write_bytes(specification_)
    for name, content in blobs.items():
        blob = data / name
        if not blob.resolve().is_relative_to(data.resolve()):
            raise PackageError(
                f"the weight file {name!r} lies outside the model, expected a path such as weights/x.bin"
            )
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
    item = {"author": _AUTHOR, "description": "", "name": _SPECIFICATION, "path": f"{_AUTHOR}/{_SPECIFICATION}"}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"model": item}, "rootModelIdentifier": "model"}
    (package / "Manifest.json").write_text(json.dumps(manifest))
    name_items_by_content(package)  # what was translated of it once is then found again
