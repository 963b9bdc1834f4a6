"""Reading images in threads, and images that cannot be read."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import (
    Split,
    iterate,
    load_images,
    open_data,
    preprocess,
)
from coreml_prune_bench.models.preprocessing import Preprocessing
from tests.data.samples import noise, save, truncate


@pytest.fixture
def five(tmp_path: Path) -> Split:
    for index in range(5):
        save(tmp_path / f"five/val/cat/{index}.jpg", noise(50 + index, 40, index))
    return open_data(f"imagefolder:{tmp_path / 'five'}").val


@pytest.mark.parametrize("workers", [1, 3, None])
def test_load_images_keeps_the_order_asked_for(five: Split, workers: int | None) -> None:
    images = load_images(five, [4, 0, 4], 32, workers=workers)
    assert images.shape == (3, 32, 32, 3)
    for position, index in enumerate([4, 0, 4]):
        assert np.array_equal(images[position], preprocess(five.image(index), 32))


def test_load_images_of_nothing_is_an_empty_array(five: Split) -> None:
    assert load_images(five, [], 32).shape == (0, 32, 32, 3)


@pytest.mark.parametrize(("batch_size", "lengths"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (64, [5])])
def test_iterate_gives_every_image_once_in_order(five: Split, batch_size: int, lengths: list[int]) -> None:
    batches = list(iterate(five, 32, batch_size=batch_size, workers=2))
    assert [len(batch.indices) for batch in batches] == lengths
    indices = np.concatenate([batch.indices for batch in batches])
    assert indices.tolist() == [0, 1, 2, 3, 4]
    assert indices.dtype == np.int64
    images = np.concatenate([batch.images for batch in batches])
    assert np.array_equal(images, load_images(five, range(5), 32))


class CountingSource:
    """Hands out one small image and remembers the highest index asked for."""

    def __init__(self) -> None:
        self.highest = -1

    def open(self, index: int) -> Image.Image:
        self.highest = max(self.highest, index)
        return Image.new("RGB", (8, 8))

    def digests(self, progress: Callable[[int, int], None] | None) -> list[str]:
        raise NotImplementedError


def test_iterate_reads_no_further_ahead_than_two_batches() -> None:
    source = CountingSource()
    split = Split("val", ("a",), np.zeros(100, np.int64), tuple(map(str, range(100))), source)
    for number, _ in enumerate(iterate(split, 8, batch_size=4, workers=4)):
        assert source.highest < (number + 3) * 4


def test_a_truncated_jpeg_is_named_with_what_to_do(tmp_path: Path) -> None:
    truncate(save(tmp_path / "val/n01/x.JPEG", noise(200, 200)))
    split = open_data(f"imagefolder:{tmp_path}").val
    expected = r"^cannot decode val/n01/x\.JPEG: image file is truncated.*; remove it or use --skip-bad-images$"
    with pytest.raises(DataError, match=expected):
        split.image(0)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_what_is_no_image_is_named_without_a_path_of_this_machine(tmp_path: Path, content: bytes) -> None:
    save(tmp_path / "val/cat/a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"^cannot decode val/cat/a\.png: ") as caught:
        open_data(f"imagefolder:{tmp_path}").val.image(0)
    assert str(tmp_path) not in str(caught.value)
    assert " at 0x" not in str(caught.value)


def test_a_file_removed_after_opening_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "val/cat/a.png")
    split = open_data(f"imagefolder:{tmp_path}").val
    path.unlink()
    with pytest.raises(DataError, match=r"val/cat/a\.png: No such file"):
        split.image(0)


def test_iterate_stops_at_a_bad_image_or_names_what_it_skipped(five: Split, tmp_path: Path) -> None:
    for index in (1, 2, 3):
        truncate(tmp_path / f"five/val/cat/{index}.jpg")
    with pytest.raises(DataError, match=r"cat/1\.jpg"):
        list(iterate(five, 32, batch_size=2))
    with pytest.raises(DataError, match=r"cat/\d\.jpg"):
        load_images(five, range(5), 32)

    batches = list(iterate(five, 32, batch_size=2, skip_bad=True))
    assert [batch.indices.tolist() for batch in batches] == [[0], [], [4]]
    assert [batch.bad for batch in batches] == [("val/cat/1.jpg",), ("val/cat/2.jpg", "val/cat/3.jpg"), ()]
    assert [batch.images.shape for batch in batches] == [(1, 32, 32, 3), (0, 32, 32, 3), (1, 32, 32, 3)]


def test_bad_images_of_any_cause_are_named_or_skipped(
    five: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe, a device, a reader of Pillow's that is not done, and a picture that no memory holds; hashed too."""
    folder = tmp_path / "five/val/cat"
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zeros.jpg").symlink_to("/dev/zero")
    dds = b"DDS " + struct.pack("<7I", 124, 0x1007, 4, 4, 0, 0, 0) + bytes(44) + struct.pack("<8I", 32, *[0] * 7)
    (folder / "unknown.png").write_bytes(dds + bytes(200))
    save(folder / "vast.png", noise(9, 9, 0))

    def seen(image: Image.Image, size: int, asked: Preprocessing) -> np.ndarray:
        if image.size == (9, 9):
            raise MemoryError
        return preprocess(image, size, asked)

    monkeypatch.setattr("coreml_prune_bench.data.images.preprocess", seen)
    split = open_data(f"imagefolder:{tmp_path / 'five'}").val
    bad = ["pipe.jpg", "unknown.png", "vast.png", "zeros.jpg"]
    (batch,) = iterate(split, 32, batch_size=64, skip_bad=True)
    assert batch.bad == tuple(f"val/cat/{name}" for name in bad)
    assert np.array_equal(batch.images, load_images(five, range(5), 32))
    for name in bad:
        with pytest.raises(DataError, match=rf"^cannot decode val/cat/{name}: [^;\n]+; .* use --skip-bad-images$"):
            load_images(split, [split.ids.index(f"val/cat/{name}")], 32)
    assert split.fingerprint != five.fingerprint
    assert split.fingerprint == open_data(f"imagefolder:{tmp_path / 'five'}").val.fingerprint


def test_large_images_take_turns(five: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coreml_prune_bench.data.images._LARGE_PIXELS", 100)
    at_once, most = [], []

    def seen(image: Image.Image, size: int, asked: Preprocessing) -> np.ndarray:
        at_once.append(image)
        most.append(len(at_once))
        view = preprocess(image, size, asked)
        at_once.pop()
        return view

    monkeypatch.setattr("coreml_prune_bench.data.images.preprocess", seen)
    assert len(load_images(five, range(5), 32, workers=5)) == 5
    assert most == [1] * 5
