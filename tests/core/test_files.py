"""Whole files and their hashes: what records and artifacts are told apart by must never change."""

import hashlib
from pathlib import Path

import pytest

from coreml_prune_bench.core.files import file_hash, tree_hash, tree_hashes, write_atomically


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
