"""Whole files and their hashes: what records and artifacts are told apart by must never change."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from coreml_prune_bench.core.files import (
    are_there,
    file_hash,
    files_of,
    json_files,
    tree_hash,
    tree_hash_of_all,
    tree_hashes,
    write_atomically,
)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_folder_s_hash_is_that_of_its_files_hashes_by_path_and_leaves_out_the_manifest(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "weights.bin").write_text("w")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "manifest.json").write_text("{}")
    assert tree_hashes(tmp_path) == {"a.txt": sha256("a"), "b/weights.bin": sha256("w")}
    # As records of every version so far have it.
    assert tree_hash(tmp_path) == sha256(f'{{"a.txt": "{sha256("a")}", "b/weights.bin": "{sha256("w")}"}}')
    assert file_hash(tmp_path / "a.txt") == sha256("a")


@pytest.mark.parametrize("content", ["Grüße\n", b"\x00\xff"])
def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path, content: str | bytes):
    path = tmp_path / "file"
    path.write_text("before")
    write_atomically(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["before"]


# --- which files count

FOREIGN = (".DS_Store", "._model.mlmodel", "Thumbs.db", "desktop.ini", "Desktop.ini", ".nfs0001", "__MACOSX/weight.bin")
BLOB = "@model_path/weights/weight.bin"


def package(folder: Path, *paths: str, listed: tuple[str, ...] = ("model.mlmodel", "weights")) -> Path:
    """As coremltools writes one; its model refers to `paths`."""
    data = folder / "Data" / "com.apple.CoreML"
    (data / "weights").mkdir(parents=True)
    (data / "weights" / "weight.bin").write_bytes(b"weights")
    (data / "model.mlmodel").write_bytes(b"\x08\x08" + b"\x12\x1e".join(path.encode() for path in (BLOB, *paths)))
    items = {str(number): {"path": f"com.apple.CoreML/{name}"} for number, name in enumerate(listed)}
    (folder / "Manifest.json").write_text(json.dumps({"itemInfoEntries": items, "rootModelIdentifier": "0"}))
    return folder


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"something else")
    return path


@pytest.mark.parametrize("place", ["", "Data", "Data/com.apple.CoreML", "Data/com.apple.CoreML/weights"])
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_no_part_of_a_package(tmp_path: Path, name: str, place: str):
    folder = package(tmp_path / "m.mlpackage")
    before, files = tree_hash(folder), files_of(folder)
    assert [path.name for path in files] == ["model.mlmodel", "weight.bin", "Manifest.json"]
    put(folder / place / name)
    assert (tree_hash(folder), files_of(folder)) == (before, files)
    assert tree_hash_of_all(folder) != before


@pytest.mark.parametrize(
    "name", ["notes.txt", "Data/model.bak", "Data/com.apple.CoreML/old.mlmodel", "Data/old/weight.bin"]
)
def test_nor_is_what_neither_its_manifest_nor_its_model_names(tmp_path: Path, name: str):
    folder = package(tmp_path / "m.mlpackage")
    before = tree_hash(folder)
    put(folder / name)
    assert tree_hash(folder) == before


@pytest.mark.parametrize(
    "name", ["Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"]
)
@pytest.mark.parametrize("damage", [lambda f: f.write_bytes(f.read_bytes() + b"x"), lambda f: f.unlink()])
def test_a_package_is_another_one_where_its_files_change(tmp_path: Path, name: str, damage):
    folder = package(tmp_path / "m.mlpackage")
    before = tree_hash(folder)
    put(folder / ".DS_Store")
    damage(folder / name)
    assert tree_hash(folder) != before


@pytest.mark.parametrize(
    ("name", "path", "listed"),
    [
        ("weights/weight.bin", BLOB, ("model.mlmodel",)),  # some tools list the model alone
        ("weights/second.bin", "@model_path/weights/second.bin", ("model.mlmodel", "weights")),
        ("weights/Big.bin", "@model_path/weights/BIG.bin", ("model.mlmodel",)),  # macOS finds it
        ("weights/gewichte-ä.bin", "", ("model.mlmodel",)),  # "ä" is written in two ways
        ("weights/._weight.bin", "@model_path/weights/._weight.bin", ("model.mlmodel", "weights")),
        ("blobs/0.bin", "@model_path/blobs/0.bin", ("model.mlmodel",)),
        ("../other/0.bin", "@model_path/./weights/../..//other/0.bin", ("model.mlmodel", "weights")),
        ("weights/unused.bin", "", ("model.mlmodel", "weights")),  # in a folder that is listed
        ("weights/weight.bin", BLOB, ("../com.apple.CoreML/model.mlmodel",)),
    ],
)
def test_no_weight_that_a_model_reads_is_overlooked(tmp_path: Path, name: str, path: str, listed: tuple[str, ...]):
    """A hash that leaves it out would have a changed package taken for the one that was measured."""
    folder = package(tmp_path / "m.mlpackage", path, listed=listed)
    weight = put(folder / "Data" / "com.apple.CoreML" / name)
    before = tree_hash(folder)
    weight.write_bytes(b"other weights")
    assert tree_hash(folder) != before


@pytest.mark.parametrize(
    "manifest", ["", "[]", "{", '{"itemInfoEntries": 3}', '{"itemInfoEntries": {"a": {}}}', "[" * 9999]
)
def test_a_package_with_a_damaged_manifest_is_all_its_files(tmp_path: Path, manifest: str):
    folder = package(tmp_path / "m.mlpackage")
    (folder / "Manifest.json").write_text(manifest)
    before = tree_hash(folder)
    put(folder / ".DS_Store")
    assert tree_hash(folder) == before
    put(folder / "notes.txt")
    assert tree_hash(folder) != before


def test_files_are_there_where_each_has_its_hash_whatever_lies_beside_them(tmp_path: Path):
    put(tmp_path / "a" / "file")
    hashes = tree_hashes(tmp_path)
    put(tmp_path / "a" / "notes.txt")
    assert are_there(tmp_path, hashes)
    (tmp_path / "a" / "file").write_bytes(b"another")
    assert not are_there(tmp_path, hashes)
    (tmp_path / "a" / "file").unlink()
    assert not are_there(tmp_path, hashes)


def test_json_files_are_those_of_the_folder_without_foreign_ones(tmp_path: Path):
    for name in ("b.json", "a.json", "._a.json", "c.txt"):
        put(tmp_path / name)
    assert [path.name for path in json_files(tmp_path)] == ["a.json", "b.json"]
    assert json_files(tmp_path, "b*.json") == [tmp_path / "b.json"]
    assert json_files(tmp_path / "nothing") == json_files(tmp_path / "c.txt") == []


def test_a_folder_that_cannot_be_read_is_not_one_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        json_files(tmp_path / "loop")

    def forbidden(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(os, "listdir", forbidden)
    with pytest.raises(PermissionError):
        json_files(tmp_path)


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    path = tmp_path / ("x" * 255)
    write_atomically(path, "whole")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_write_that_the_system_refuses_names_the_file(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_atomically(tmp_path / "nowhere" / "record.json", "whole")
