"""A package that was loaded before comes out of the cache: the same results, nothing translated or trusted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import coremltools as ct
import numpy as np
import onnx
import pytest
from coremltools.converters.mil import Builder as mb
from filelock import FileLock

from coreml_prune_bench.core.cache_folder import CACHE_VARIABLE, remove
from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.program import Feature
from coreml_prune_bench.runtimes.portable import cache, load, model_file
from coreml_prune_bench.runtimes.portable.interface import Classifier, Interface
from tests.packages import from_mil

WIDTH = 600
X = np.random.default_rng(0).normal(size=(2, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of 1.4 MB, just worth keeping."""
    weight = np.random.default_rng(1).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    path = tmp_path_factory.mktemp("package") / "m.mlpackage"
    return from_mil(path, lambda x: mb.linear(x=x, weight=weight, name="y"), (1, WIDTH))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the entries are."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "portable"


@pytest.fixture
def translations(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A list that grows by one for each model that is translated and written."""
    written: list[Path] = []
    write = model_file.write
    monkeypatch.setattr(model_file, "write", lambda translation, to: (written.append(to), write(translation, to)))
    return written


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def results(path: Path, **options: object) -> np.ndarray:
    return load(path, threads=1, **options).predict_batch({"x": X})["y"]  # type: ignore[arg-type]


def test_second_load_translates_nothing(wide: Path, folder: Path, translations: list[Path]) -> None:
    first, second = results(wide), results(wide)
    np.testing.assert_array_equal(first, second)
    assert len(translations) == len(entries(folder)) == 1
    model = load(wide)
    assert (model.any_batch, model.input_names, model.output_names) == (True, ("x",), ("y",))
    assert model.program.operations  # read when it is asked for


def test_entry_belongs_to_content_precision_and_code(
    wide: Path, folder: Path, translations: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(wide, tmp_path / "copy.mlpackage")
    results(wide)
    np.testing.assert_array_equal(results(copy), results(wide))
    assert len(translations) == 1  # wherever the package is
    load(wide, precision="float16")
    assert len(translations) == 2
    weights = next(copy.rglob("weight.bin"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 8 * 4 + 3] ^= 0x80  # the sign of one weight
    weights.write_bytes(data)
    assert not np.array_equal(results(copy), results(wide))
    assert len(translations) == 3
    monkeypatch.setattr(cache, "code_hashes", lambda: {"translate.py": "another"})
    results(wide)
    assert len(translations) == 4


def test_the_code_of_an_entry_is_the_reader_the_translation_and_the_operations() -> None:
    portable = "runtimes/portable"
    known = {"mlprogram/reader.py", f"{portable}/translate.py", f"{portable}/ops/linear.py"}
    assert known <= cache.code_hashes().keys()


def test_package_that_changes_under_a_loaded_model_is_not_mixed_with_it(
    wide: Path, folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(wide, tmp_path / "copy.mlpackage")
    results(copy)
    model = load(copy)
    next(copy.rglob("*.mlmodel")).touch()
    assert model.program.operations
    model = load(copy)
    weights = next(copy.rglob("weight.bin"))
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(PackageError, match="changed while it was in use; load it again"):
        model.to_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", [".DS_Store", "._weights.bin", "notes.txt"])
def test_foreign_files_in_the_package_or_the_entry_translate_nothing_again(
    name: str, wide: Path, folder: Path, translations: list[Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(wide, tmp_path / "copy.mlpackage")
    expected = results(copy)
    model = load(copy)
    for place in (copy, copy / "Data", *entries(folder)):
        (place / name).write_bytes(b"\0")
    np.testing.assert_array_equal(results(copy), expected)
    assert len(translations) == len(entries(folder)) == 1
    assert model.program.operations  # and the package is not taken for another one


@pytest.mark.parametrize("manifest", ["{}", "[]", "3", '{"model.onnx": 3}'])
def test_entry_whose_manifest_names_no_files_is_made_again(
    manifest: str, wide: Path, folder: Path, translations: list[Path]
) -> None:
    expected = results(wide)
    (entries(folder)[0] / "manifest.json").write_text(manifest)
    np.testing.assert_array_equal(results(wide), expected)
    assert len(translations) == 2


@pytest.mark.parametrize("file", ["model.onnx", "weights.bin", "interface.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "shorter", "missing"])
def test_damaged_entry_is_made_again(
    file: str, damage: str, wide: Path, folder: Path, translations: list[Path]
) -> None:
    expected = results(wide)
    path = entries(folder)[0] / file
    data = path.read_bytes()
    path.unlink()
    if damage == "flipped":
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])
    elif damage == "shorter":
        path.write_bytes(data[: len(data) // 2])
    np.testing.assert_array_equal(results(wide), expected)
    assert len(translations) == 2
    np.testing.assert_array_equal(results(wide), expected)
    assert len(translations) == 2


def test_entry_that_vanishes_while_it_is_opened_is_made_again(
    wide: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = results(wide)
    find = cache.find

    def evicted(key: str) -> Path | None:
        entry = find(key)
        shutil.rmtree(folder)
        return entry

    monkeypatch.setattr(cache, "find", evicted)
    np.testing.assert_array_equal(results(wide), expected)


def test_cache_can_be_turned_off(
    wide: Path, folder: Path, translations: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = results(wide, cache=False)
    monkeypatch.setenv(cache.OFF_VARIABLE, "1")
    np.testing.assert_array_equal(results(wide), expected)
    assert len(translations) == 2
    assert not folder.exists()


@pytest.mark.parametrize("obstacle", ["a file", "a read-only folder", "a lock that is held"])
def test_what_cannot_be_cached_loads_all_the_same(
    obstacle: str, wide: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.parent.mkdir()
    lock = FileLock(folder / ".lock")
    if obstacle == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
    if obstacle == "a read-only folder":
        folder.chmod(0o500)
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write anywhere")
    elif obstacle == "a lock that is held":
        monkeypatch.setattr(cache, "_PATIENCE_S", 0.1)
        lock.acquire()
    try:
        assert results(wide).shape == X.shape
    finally:
        lock.release()
        if folder.is_dir():
            folder.chmod(0o700)
            assert not entries(folder)


def test_longest_unused_entries_go_first(wide: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results(wide)
    (first,) = entries(folder)
    load(wide, precision="float16")
    (second,) = set(entries(folder)) - {first}
    for entry, age in ((first, 200), (second, 100)):
        os.utime(entry / "manifest.json", (os.stat(entry / "manifest.json").st_mtime - age,) * 2)
    results(wide)  # the first is now the one used last
    monkeypatch.setattr(cache, "MOST_BYTES", 5 << 19)  # room for one, and some
    monkeypatch.setattr(cache, "code_hashes", lambda: {"translate.py": "another"})
    results(wide)
    assert len(entries(folder)) == 1
    assert not {first, second} & set(entries(folder))


def test_remains_of_killed_processes_go_after_a_day(wide: Path, folder: Path) -> None:
    old, new = folder / ".old", folder / ".new"
    for remains in (old, new):
        (remains / "key").mkdir(parents=True)
    os.utime(old, (0, 0))
    results(wide)
    assert (old.exists(), new.exists()) == (False, True)


def test_what_is_being_written_or_loaded_is_not_removed_and_leaves_nothing(folder: Path) -> None:
    def fill(place: Path) -> None:
        (place / "weights").write_bytes(b"few")
        assert not remove(place.parent)

    with cache.made("0" * 32, fill) as place:
        assert not remove(place.parent)
        assert (place / "weights").read_bytes() == b"few"
    assert [path.name for path in folder.iterdir()] == []


def test_small_models_are_not_kept(folder: Path, tmp_path: Path) -> None:
    path = from_mil(tmp_path / "m.mlpackage", lambda x: mb.relu(x=x, name="y"), (1, WIDTH))
    np.testing.assert_array_equal(results(path), np.maximum(X, 0))
    assert entries(folder) == []


def test_missing_package_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"nothing\.mlpackage: no such package"):
        load(tmp_path / "nothing.mlpackage")


def test_onnx_file_of_a_cached_model_holds_its_weights(wide: Path, folder: Path, tmp_path: Path) -> None:
    results(wide)
    load(wide).to_onnx(tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").stat().st_size > WIDTH * WIDTH * 4


IMPORTS = """
import sys
from coreml_prune_bench.runtimes.portable import load
load(sys.argv[1])
print(sorted({"coremltools", "onnx", "torch"} & set(sys.modules)))
"""


def test_neither_torch_nor_coremltools_is_imported_to_load(wide: Path, folder: Path) -> None:
    """And not even onnx, where the cache has the translation."""
    found = [
        subprocess.run(
            [sys.executable, "-c", IMPORTS, str(wide)], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert found == ["['onnx']", "[]"]


def test_interface_survives_its_file() -> None:
    image = Feature("i", "image", (None, 4, 3), "uint8", "RGB", (2, 4, 3), ((1, None), (4, 4), (3, 3)))
    array = Feature("a", "array", (2,), "float32", shapes=((2,), (3,)), default=float("inf"))
    interface = Interface(
        inputs=(image, array),
        outputs=(Feature("p", "probabilities", (), "float64"),),
        states=(),
        results=("p",),
        any_batch=True,
        output_names={"p": "p/result"},
        state_names={},
        classifier=Classifier("label", "p", ("cat", 7)),
        time_varies=True,
    )
    assert Interface.from_json(interface.to_json()) == interface


@pytest.mark.slow
def test_coremltools_works_after_a_package_was_read() -> None:
    """Both have the same protobuf classes."""
    code = """
from coreml_prune_bench.mlprogram.specification import new_specification
before = type(new_specification())
from coremltools.proto import Model_pb2
assert Model_pb2.Model is before is type(new_specification())
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert type(ct.proto.Model_pb2.Model()).DESCRIPTOR.full_name == "CoreML.Specification.Model"
