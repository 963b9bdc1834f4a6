"""A fingerprint that sees everything, and the digests that are remembered for it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coreml_prune_bench.data import open_data, remembered
from tests.data.samples import noise, save


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for index, name in enumerate(("val/cat/a.png", "val/cat/b.png", "val/dog/c.png")):
        save(tmp_path / "pets" / name, noise(20, 20, index))
    return tmp_path / "pets"


def fingerprint(path: Path) -> str:
    return open_data(f"imagefolder:{path}").val.fingerprint


def swap_content(pets: Path) -> None:
    a, b = pets / "val/cat/a.png", pets / "val/cat/b.png"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda pets: save(pets / "val/cat/a.png", noise(20, 20, 99)),
    "two contents swapped": swap_content,
    "an id": lambda pets: (pets / "val/cat/a.png").rename(pets / "val/cat/aa.png"),
    "a label": lambda pets: (pets / "classes.txt").write_text("dog\ncat\n"),
    "the classes": lambda pets: (pets / "classes.txt").write_text("cat\ndog\neel\n"),
    "one image more": lambda pets: save(pets / "val/dog/d.png"),
    "one image less": lambda pets: (pets / "val/cat/b.png").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_sees_a_change_of(pets: Path, change: str) -> None:
    before = fingerprint(pets)
    CHANGES[change](pets)
    assert fingerprint(pets) != before


def test_the_fingerprint_does_not_see_place_time_or_cache(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(pets)
    shutil.copytree(pets, tmp_path / "elsewhere")
    os.utime(pets / "val/cat/a.png", (1, 1))
    assert fingerprint(pets) == fingerprint(tmp_path / "elsewhere") == before
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "fresh"))
    assert fingerprint(pets) == before


def test_digests_are_remembered(pets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(pets)
    read: list[Path] = []
    monkeypatch.setattr(remembered, "read_file", lambda path: read.append(path) or path.read_bytes())
    assert fingerprint(pets) == before
    assert read == []
    os.utime(pets / "val/cat/a.png", (1, 1))
    assert fingerprint(pets) == before
    assert read == [pets / "val/cat/a.png"]
    assert len(list(cache.rglob("*"))) == 2  # one folder and one file in it: nothing temporary is left


def exchange(one: Path, other: Path) -> None:
    one.rename(one.with_name("between"))
    other.rename(one)
    one.with_name("between").rename(other)


def exchange_content(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    for file in (one, other):
        os.utime(file, ns=(0, 0))


CLASSES, IMAGES = ("val/a", "val/b"), ("val/a/0.bmp", "val/b/0.bmp")


@pytest.mark.parametrize(
    ("change", "of"),
    [(exchange, CLASSES), (exchange, IMAGES), (exchange_content, IMAGES)],
    ids=["folders", "files", "content"],
)
def test_files_of_one_size_and_time_are_told_apart(
    tmp_path: Path, change: Callable[[Path, Path], None], of: tuple[str, str]
) -> None:
    data = tmp_path / "data"
    for name, pixels in zip(IMAGES, (noise(20, 20, 0), noise(20, 20, 1)), strict=True):
        save(data / name, pixels)
        os.utime(data / name, ns=(0, 0))  # as unpacked from an archive
    assert len({(data / name).stat().st_size for name in IMAGES}) == 1
    before = fingerprint(data)
    change(*(data / name for name in of))
    shutil.copytree(data, tmp_path / "unknown")
    assert fingerprint(data) == fingerprint(tmp_path / "unknown") != before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": 3}', b'{"root": "/x", "files": {}}', b"\xff\xfe"])
def test_a_damaged_cache_is_ignored_and_replaced(pets: Path, cache: Path, content: bytes) -> None:
    before = fingerprint(pets)
    (file,) = cache.rglob("*.json")
    good = json.loads(file.read_bytes())
    file.write_bytes(content)
    assert fingerprint(pets) == before
    assert json.loads(file.read_bytes()) == good


@pytest.mark.parametrize("digest", ['"zz"', '"00"', "7", "null"])
def test_a_cache_with_a_damaged_entry_is_ignored(pets: Path, cache: Path, digest: str) -> None:
    before = fingerprint(pets)
    (file,) = cache.rglob("*.json")
    content = json.loads(file.read_bytes())
    content["files"]["cat/a.png"][1] = json.loads(digest)
    file.write_text(json.dumps(content))
    assert fingerprint(pets) == before


def test_a_cache_that_cannot_be_written_does_not_matter(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(pets)
    (tmp_path / "occupied").write_text("a file where a folder should be")
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "occupied"))
    assert fingerprint(pets) == before


def test_progress_counts_up_to_all_images(pets: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_data(f"imagefolder:{pets}").val.compute_fingerprint(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)
    assert seen == sorted(seen)
