"""Reading a package changes nothing of it, whoever wrote it: neither a byte nor the time of a file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from coremltools.models.utils import load_spec

from coreml_prune_bench.core.files import tree_hash
from coreml_prune_bench.runtimes.portable.native.structure import model_structure


@pytest.fixture
def foreign(package, tmp_path) -> Path:
    """A package whose manifest is not laid out as coremltools does it, nor its items in that order."""
    copy = Path(shutil.copytree(package, tmp_path / "foreign.mlpackage"))
    manifest = json.loads((copy / "Manifest.json").read_bytes())
    items = {name.upper(): item for name, item in reversed(manifest["itemInfoEntries"].items())}
    root = manifest["rootModelIdentifier"].upper()
    written = {"rootModelIdentifier": root, "itemInfoEntries": items, "fileFormatVersion": "1.0.0"}
    (copy / "Manifest.json").write_text(json.dumps(written))
    return copy


def state(package: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in package.rglob("*") if path.is_file())
    return {str(path.relative_to(package)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


COMMANDS: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "inspect": lambda package, folder: (package,),
    "predict": lambda package, folder: (package, "--input", f"image={folder / 'x.png'}"),
    "export-onnx": lambda package, folder: (package, folder / "x.onnx"),
    "accuracy": lambda package, folder: (package, "--data", f"imagefolder:{folder / 'images'}"),
    "compare": lambda package, folder: (package, package, "--data", f"imagefolder:{folder / 'images'}"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_leaves_a_foreign_package_as_it_is(command, foreign, images, tmp_path, run_bench):
    PIL.Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    before = state(foreign)
    code, output, errors = run_bench(command, *COMMANDS[command](foreign, tmp_path))
    assert (code, bool(output)) == (0, True), errors
    assert state(foreign) == before


def test_its_structure_is_read_without_coremltools_reader_which_would_change_it(foreign):
    before, sha256 = state(foreign), tree_hash(foreign)
    assert model_structure(foreign).program.functions["main"].inputs[0].name == "image"
    assert state(foreign) == before
    load_spec(str(foreign))  # so this test would have found it
    assert tree_hash(foreign) != sha256
