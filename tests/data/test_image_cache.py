"""Prepared images are kept: the same pixels, decoded once, whatever is killed, damaged, full or asked for at once."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import (
    Batch,
    Split,
    image_cache,
    iterate,
)
from coreml_prune_bench.data.image_cache import BLOCK_IMAGES, ImageCache, is_worth_keeping

SIZE = 32
COUNT = 2 * BLOCK_IMAGES + 10


class Drawn:
    """Images drawn when asked for: each another one. `bad` ones do not decode; `decoded` are the positions drawn."""

    def __init__(self, wait_s: float = 0) -> None:
        self.bad: set[int] = set()
        self.decoded: list[int] = []
        self.wait_s = wait_s

    def open(self, index: int) -> Image.Image:
        time.sleep(self.wait_s)
        self.decoded.append(index)
        if index in self.bad:
            raise OSError("broken")
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (SIZE + 8, SIZE + 1, 3), np.uint8))

    def digests(self, progress: Callable[[int, int], None] | None) -> list[str]:
        return [f"{index:064x}" for index in range(COUNT)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Not there yet."""
    monkeypatch.setenv("COREML_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def source() -> Drawn:
    return Drawn()


@pytest.fixture
def split(source: Drawn) -> Split:
    return split_of(source)


def split_of(source: Drawn) -> Split:
    ids = tuple(f"val/{index}.png" for index in range(COUNT))
    return Split("val", ("a", "b"), np.arange(COUNT) % 2, ids, source)


def prepared(split: Split, *, skip_bad: bool = False, lines: list[str] | None = None) -> list[Batch]:
    """Every batch of a pass, copied. Lines that are said are added to `lines`."""
    said: list[str] = [] if lines is None else lines
    with ImageCache(split, SIZE, skip_bad=skip_bad, say=said.append) as images:
        images.prepare()
        return [Batch(batch.indices, batch.images.copy(), batch.bad) for batch in images.batches(32)]


def same(left: Iterator[Batch] | list[Batch], right: Iterator[Batch] | list[Batch]) -> bool:
    return all(
        np.array_equal(a.indices, b.indices) and np.array_equal(a.images, b.images) and a.bad == b.bad
        for a, b in zip(left, right, strict=True)
    )


def files(cache: Path) -> tuple[Path, Path]:
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert sorted(path.name for path in folder.iterdir()) == ["blocks", "pixels"]
    return folder / "pixels", folder / "blocks"


def test_batches_are_those_of_decoding(split: Split) -> None:
    assert same(prepared(split), iterate(split, SIZE, batch_size=32))


def test_batches_with_bad_images_are_those_of_decoding(split: Split, source: Drawn) -> None:
    source.bad = {3, *range(32, 64), COUNT - 1}
    batches = prepared(split, skip_bad=True)
    assert same(batches, iterate(split, SIZE, batch_size=32, skip_bad=True))
    assert [len(batch.indices) for batch in batches] == [31, 0, 32, 32, 9]


def test_an_image_is_decoded_once(split: Split, source: Drawn) -> None:
    lines: list[str] = []
    prepared(split, lines=lines)
    assert sorted(source.decoded) == list(range(COUNT))
    source.decoded.clear()
    assert same(prepared(split, lines=lines), prepared(split, lines=lines))
    assert source.decoded == []
    (line,) = lines
    assert line.startswith(f"preparing {COUNT} images once, 0.00 GB in ")
    assert "--no-image-cache" in line


def test_pixels_and_nothing_of_labels_are_kept(split: Split, cache: Path) -> None:
    prepared(split)
    pixels, blocks = files(cache)
    assert pixels.stat().st_size == COUNT * SIZE * SIZE * 3
    kept = np.fromfile(pixels, np.uint8).reshape(COUNT, SIZE, SIZE, 3)
    assert np.array_equal(kept, np.concatenate([batch.images for batch in iterate(split, SIZE, batch_size=32)]))
    entries = [json.loads(line) for line in blocks.read_text().splitlines() if line]
    assert set(entries[0]) == {"format", "split", "shape", "block_images", "transform"}
    assert {key for entry in entries[1:] for key in entry} == {"number", "sha256", "bad"}


def test_another_size_has_a_file_of_its_own(split: Split, cache: Path) -> None:
    prepared(split)
    with ImageCache(split, 16) as images:
        images.prepare()
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2


def test_few_images_are_not_worth_a_file(split: Split) -> None:
    assert not is_worth_keeping(split, SIZE)
    assert is_worth_keeping(split, 224)


# --- interrupted and damaged

_BUILD = """
import sys
from coreml_prune_bench.data.image_cache import ImageCache
from tests.data.test_image_cache import SIZE, Drawn, split_of
with ImageCache(split_of(Drawn(wait_s=0.01)), SIZE) as images:
    images.prepare(lambda done, total: print(done, flush=True))
"""


def test_a_build_that_was_killed_goes_on_with_the_next_block(split: Split, source: Drawn) -> None:
    process = subprocess.Popen([sys.executable, "-c", _BUILD], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == f"{BLOCK_IMAGES}\n"
    process.kill()
    process.communicate()
    lines: list[str] = []
    batches = prepared(split, lines=lines)
    assert min(source.decoded) >= BLOCK_IMAGES
    assert lines[0].startswith(f"preparing the remaining {COUNT - min(source.decoded)} of {COUNT} images once")
    assert same(batches, iterate(split, SIZE, batch_size=32))


def test_a_part_is_prepared_alone_and_others_find_it(split: Split, source: Drawn) -> None:
    """Image 70 is bad: of no matter for the first block and the last."""
    source.bad.add(BLOCK_IMAGES + 6)
    lines: list[str] = []
    done: list[tuple[int, int]] = []
    for part in (range(2 * BLOCK_IMAGES, COUNT), range(BLOCK_IMAGES)):
        with ImageCache(split, SIZE, among=part, say=lines.append) as images:
            images.prepare(lambda count, total: done.append((count, total)))
            batches = [Batch(batch.indices, batch.images.copy(), batch.bad) for batch in images.batches(32)]
        assert [int(place) for batch in batches for place in batch.indices] == list(part)
        assert same(batches, iterate(split, SIZE, batch_size=32, among=part))
    assert done == [(10, 10), (BLOCK_IMAGES, BLOCK_IMAGES)]
    assert [line.split(" once")[0] for line in lines] == ["preparing 10 images", f"preparing {BLOCK_IMAGES} images"]
    source.decoded.clear()
    whole = prepared(split, skip_bad=True)
    assert min(source.decoded) == BLOCK_IMAGES  # the whole finds the first block
    assert same(whole, iterate(split, SIZE, batch_size=32, skip_bad=True))
    with pytest.raises(ValueError, match="begins with a block of 64, not at 32"):
        ImageCache(split, SIZE, among=range(32, 64))


def test_half_a_line_is_no_finished_block(split: Split, source: Drawn, cache: Path) -> None:
    prepared(split)
    _, blocks = files(cache)
    blocks.write_bytes(blocks.read_bytes()[:-20])
    source.decoded.clear()
    assert same(prepared(split), prepared(split))
    assert sorted(source.decoded) == list(range(2 * BLOCK_IMAGES, COUNT))


def test_a_damaged_block_is_found_told_and_prepared_again(split: Split, source: Drawn, cache: Path) -> None:
    before = prepared(split)
    pixels, _ = files(cache)
    with pixels.open("r+b") as file:
        file.seek((BLOCK_IMAGES + 5) * SIZE * SIZE * 3)
        file.write(b"\0" * 100)
    source.decoded.clear()
    lines: list[str] = []
    assert same(prepared(split, lines=lines), before)
    assert lines == [f"{pixels.parent}: block 1 is damaged; its 64 images are prepared again"]
    assert sorted(source.decoded) == list(range(BLOCK_IMAGES, 2 * BLOCK_IMAGES))
    assert same(prepared(split, lines=lines), before)
    assert len(lines) == 1


@pytest.mark.parametrize("part", ["pixels", "blocks"])
@pytest.mark.parametrize("length", [0, 70])
def test_half_a_file_is_made_anew(split: Split, cache: Path, part: str, length: int) -> None:
    before = prepared(split)
    path = next(file for file in files(cache) if file.name == part)
    path.write_bytes(path.read_bytes()[:length])
    assert same(prepared(split), before)


def test_images_of_another_transform_are_told_and_replaced(
    split: Split, source: Drawn, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "transform_version", lambda: {"code": "0", "libjpeg": "6.2", "pillow": "9.0.0"})
        prepared(split)
    pixels, _ = files(cache)
    source.decoded.clear()
    lines: list[str] = []
    prepared(split, lines=lines)
    assert lines[0] == f"{pixels.parent} holds images that were prepared differently (with Pillow 9.0.0)"
    assert lines[1].startswith(f"preparing {COUNT} images once")
    assert sorted(source.decoded) == list(range(COUNT))


def test_images_of_another_split_under_this_name_are_not_believed(split: Split, cache: Path) -> None:
    before = prepared(split)
    folder = files(cache)[0].parent
    other = Split("val", ("a", "b", "c"), split.labels, split.ids, split.source)
    with ImageCache(other, SIZE) as images:
        shutil.copytree(folder, images.folder, dirs_exist_ok=True)
    lines: list[str] = []
    assert same(prepared(other, lines=lines), before)
    assert "prepared differently" in lines[0]


def test_who_reads_is_not_disturbed_by_a_new_version(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepared(split)
    with ImageCache(split, SIZE) as images:
        images.prepare()
        monkeypatch.setattr(image_cache, "transform_version", dict)
        with ImageCache(split, SIZE):
            assert same(list(images.batches(32)), before)


# --- bad images


def test_a_bad_image_is_named_and_what_was_finished_is_kept(split: Split, source: Drawn) -> None:
    source.bad = {BLOCK_IMAGES + 7}
    with pytest.raises(DataError, match=rf"^cannot decode val/{BLOCK_IMAGES + 7}\.png: broken; .*--skip-bad-images$"):
        prepared(split)
    source.decoded.clear()
    source.bad = set()
    prepared(split)
    assert min(source.decoded) == BLOCK_IMAGES


def test_skipped_images_are_remembered_and_named_once_they_may_not_be_skipped(split: Split, source: Drawn) -> None:
    source.bad = {5, 100}
    before = prepared(split, skip_bad=True)
    source.decoded.clear()
    assert same(prepared(split, skip_bad=True), before)
    assert source.decoded == [5, 100]
    with pytest.raises(DataError, match=r"cannot decode val/5\.png"):
        prepared(split)


def test_a_skipped_image_that_decodes_later_is_taken(split: Split, source: Drawn) -> None:
    source.bad = {5, 100}
    prepared(split, skip_bad=True)
    source.bad = {100}
    assert same(prepared(split, skip_bad=True), iterate(split, SIZE, batch_size=32, skip_bad=True))


# --- no room, no right, not alone


def test_a_disk_without_room_is_told_before_anything_is_decoded(
    split: Split, source: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)
    with pytest.raises(DataError, match=r"no room for 138 prepared images .* 0\.00 GB are free; .*--no-image-cache$"):
        prepared(split)
    assert source.decoded == []


def test_a_folder_that_cannot_be_written_to_is_named(split: Split, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file")
    with pytest.raises(DataError, match=r"^cannot keep prepared images in .*COREML_BENCH_CACHE.*--no-image-cache$"):
        prepared(split)


def test_two_builders_decode_once_between_them() -> None:
    sources = [Drawn(wait_s=0.005), Drawn(wait_s=0.005)]
    said: list[str] = []
    results: list[list[Batch]] = []
    threads = [
        threading.Thread(target=lambda s=source: results.append(prepared(split_of(s), lines=said)))
        for source in sources
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same(*results)
    assert len(sources[0].decoded) + len(sources[1].decoded) == COUNT
    assert "another process prepares these images; waiting for it" in said
