"""Claims of `data`: class order, bit-exact preprocessing, plain errors, a fingerprint that sees everything."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import (
    DataSet,
    Split,
    augment,
    iterate,
    load_images,
    open_data,
    preprocess,
)

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_sample = pytest.mark.skipif(not SAMPLE.exists(), reason="the shared data sample is not on this machine")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("COREML_BENCH_CACHE", str(folder))
    return folder


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def save(path: Path, image: Image.Image | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or noise(40, 30, len(path.as_posix()))).save(path)
    return path


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def opening_fails(spec: str, *words: str) -> None:
    """The message is one line and holds every one of `words`."""
    with pytest.raises(DataError) as caught:
        open_data(spec)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


def train_of(data: DataSet) -> Split:
    assert data.train is not None
    return data.train


@pytest.mark.parametrize("spec", ["", "mnist", "imagefolder", "imagefolder:", "hf:", "digits:x", "folder:/x"])
def test_an_unknown_spec_is_answered_with_the_known_ones(spec: str) -> None:
    opening_fails(spec, repr(spec), "digits", "imagefolder:PATH", "hf:NAME")


def test_importing_costs_no_torch_no_sklearn_and_no_datasets() -> None:
    heavy = {"torch", "torchvision", "sklearn", "datasets"}
    code = f"import sys, coreml_prune_bench.data; print(*{heavy} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- digits


def test_digits_are_split_by_class_and_never_overlap() -> None:
    data = open_data("digits")
    train = train_of(data)
    assert (len(train), len(data.val)) == (1397, 400)
    assert np.bincount(data.val.labels).tolist() == [40] * 10
    assert len({*train.ids, *data.val.ids}) == 1797
    assert data.classes == tuple("0123456789")
    assert (data.image_size, data.photographs) == (32, False)


def test_digits_are_the_enlarged_arrays_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits: Any = load_digits()
    data = open_data("digits")
    for split in (train_of(data), data.val):
        index = int(split.ids[5].removeprefix("digits[").removesuffix("]"))
        image = np.array(split.image(5))
        assert image.shape == (32, 32, 3)
        assert image.dtype == np.uint8
        # The middle of every 4 x 4 patch stays near the value it was made from, 16 being white.
        small = image[:, :, 0].reshape(8, 4, 8, 4).mean((1, 3)) / 255 * 16
        assert np.corrcoef(small.ravel(), digits.images[index].ravel())[0, 1] > 0.95
        assert split.labels[5] == digits.target[index]


def test_the_split_of_digits_is_the_same_for_everybody() -> None:
    data = open_data("digits")
    assert hashlib.sha256(" ".join(data.val.ids).encode()).hexdigest() == GOLDEN_DIGITS_VAL
    assert data.val.fingerprint == open_data("digits").val.fingerprint != train_of(data).fingerprint


# SHA-256 of the ids of val, spaces between; a change of the split would make old records incomparable.
GOLDEN_DIGITS_VAL = "aaff0100b5082af3f06bcef9fcad39d7be877b7d4713b892830fe2f5756cf6e6"


# --- imagefolder: layout and class order


def test_classes_are_the_sorted_folder_names_of_both_splits(tmp_path: Path) -> None:
    for name in ("train/cat/b.png", "train/cat/a.JPG", "train/ant/x.jpeg", "val/cat/v.WebP", "val/dog/w.bmp"):
        save(tmp_path / name)
    data = open_data(f"imagefolder:{tmp_path}")
    assert data.classes == ("ant", "cat", "dog")
    assert train_of(data).ids == ("train/ant/x.jpeg", "train/cat/a.JPG", "train/cat/b.png")
    assert train_of(data).labels.tolist() == [0, 1, 1]
    assert data.val.ids == ("val/cat/v.WebP", "val/dog/w.bmp")
    assert data.val.labels.tolist() == [1, 2]
    assert data.val.labels.dtype == np.int64
    assert data.photographs


def test_classes_txt_gives_the_order_and_may_name_absent_folders(tmp_path: Path) -> None:
    save(tmp_path / "val/cat/a.png")
    save(tmp_path / "val/ant/a.png")
    (tmp_path / "classes.txt").write_text("cat\r\nzebra\r\nant\r\n")
    data = open_data(f"imagefolder:{tmp_path}")
    assert data.classes == ("cat", "zebra", "ant")
    assert dict(zip(data.val.ids, data.val.labels.tolist(), strict=True)) == {"val/ant/a.png": 2, "val/cat/a.png": 0}


def test_wordnet_folders_get_the_order_of_imagenet(tmp_path: Path) -> None:
    for name in ("n01440764", "n01443537", "n15075141"):
        save(tmp_path / "val" / name / "a.png")
    data = open_data(f"imagefolder:{tmp_path}")
    assert len(data.classes) == 1000
    assert data.val.labels.tolist() == [0, 1, 999]


def test_an_id_that_imagenet_lacks_makes_folder_names_the_classes(tmp_path: Path) -> None:
    for name in ("n01440764", "n99999999"):
        save(tmp_path / "val" / name / "a.png")
    assert open_data(f"imagefolder:{tmp_path}").classes == ("n01440764", "n99999999")


@needs_sample
def test_the_committed_ids_are_those_of_the_sample() -> None:
    committed = Path(__file__).resolve().parents[2] / "harness" / "data" / "imagenet_wordnet_ids.txt"
    listed = (SAMPLE / "imagenet-sample" / "classes.txt").read_text().split()
    assert committed.read_text().split() == sorted(listed)


def test_one_split_is_val_and_is_the_same_as_within_its_data_set(tmp_path: Path) -> None:
    save(tmp_path / "val/cat/a.png")
    whole, alone = open_data(f"imagefolder:{tmp_path}"), open_data(f"imagefolder:{tmp_path / 'val'}")
    assert whole.train is None
    assert alone.train is None
    assert whole.val.ids == alone.val.ids == ("val/cat/a.png",)
    assert whole.val.fingerprint == alone.val.fingerprint


def test_hidden_files_and_other_files_are_no_images(tmp_path: Path) -> None:
    save(tmp_path / "val/cat/deep/a.png")
    for name in ("val/cat/._a.png", "val/cat/notes.txt", "val/.DS_Store", "val/.cache/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    data = open_data(f"imagefolder:{tmp_path}")
    assert data.classes == ("cat",)
    assert data.val.ids == ("val/cat/deep/a.png",)


def test_opening_decodes_nothing_and_forgives_a_bad_image(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / f"val/cat/{name}.png")
    truncate(tmp_path / "val/cat/a.png")
    (tmp_path / "val/cat/b.png").write_bytes(b"no image")
    assert open_data(f"imagefolder:{tmp_path}").image_size == 30


def test_a_missing_path_is_named() -> None:
    opening_fails("imagefolder:/no/such/place", "/no/such/place", "expected", "train/ and val/")


def test_val_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "val/cat").mkdir(parents=True)
    opening_fails(f"imagefolder:{tmp_path}", f"{tmp_path / 'val'} holds no images", ".jpeg")


def test_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "val/a.png")
    opening_fails(f"imagefolder:{tmp_path}", f"{tmp_path / 'val'} holds no class folders", "one folder a class")


def test_train_without_val_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "train/cat/a.png")
    opening_fails(f"imagefolder:{tmp_path}", str(tmp_path), "no val/")


@pytest.mark.parametrize(
    ("lines", "words"),
    [("cat\n", ["dog", "classes.txt"]), ("\n\n", ["classes.txt", "empty"]), ("cat\ndog\ncat\n", ["cat", "twice"])],
)
def test_a_classes_txt_that_does_not_fit_is_named(tmp_path: Path, lines: str, words: list[str]) -> None:
    save(tmp_path / "val/cat/a.png")
    save(tmp_path / "val/dog/a.png")
    (tmp_path / "classes.txt").write_text(lines)
    opening_fails(f"imagefolder:{tmp_path}", *words)


# --- image size


@pytest.mark.parametrize(
    ("sides", "expected"),
    [([(500, 300), (300, 400), (224, 224)], 224), ([(48, 64), (60, 50), (500, 500)], 50), ([(32, 32)] * 3, 32)],
)
def test_image_size_is_224_or_the_smaller_median(tmp_path: Path, sides: list[tuple[int, int]], expected: int) -> None:
    for index, (width, height) in enumerate(sides):
        save(tmp_path / f"val/cat/{index}.png", Image.new("RGB", (width, height)))
    assert open_data(f"imagefolder:{tmp_path}").image_size == expected


# --- preprocessing and augmentation


@pytest.mark.parametrize("size", [(256, 256), (257, 301), (301, 257), (100, 75), (223, 640), (256, 511), (641, 256)])
@pytest.mark.parametrize("image_size", [224, 32, 97])
def test_preprocess_is_bit_exact_to_torchvision(size: tuple[int, int], image_size: int) -> None:
    from torchvision import transforms  # type: ignore[import-untyped]

    image = noise(*size)
    resize = transforms.Resize(256 if image_size == 224 else image_size)
    expected = np.array(transforms.Compose([resize, transforms.CenterCrop(image_size)])(image))
    actual = preprocess(image, image_size)
    assert actual.dtype == np.uint8
    assert np.array_equal(actual, expected)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "jpg"), ("CMYK", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "png"), ("1", "png")]
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = save(tmp_path / f"val/cat/a.{suffix}", noise(60, 50).convert(mode))
    image = open_data(f"imagefolder:{tmp_path}").val.image(0)
    assert image.mode == "RGB"
    assert np.array_equal(np.array(image), np.array(Image.open(path).convert("RGB")))


def coordinates(width: int, height: int) -> Image.Image:
    """Red is x and green is y, so that a view tells which part of the image it shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x], 2).round().astype(np.uint8))


def test_augment_shows_parts_within_scale_and_ratio_and_flips_half_of_them() -> None:
    image = coordinates(256, 256)
    views = [augment(image, 64, (7, 0, index)).astype(float) for index in range(400)]
    widths = np.array([np.ptp(view[:, :, 0]) + 1 for view in views]) / 256
    heights = np.array([np.ptp(view[:, :, 1]) + 1 for view in views]) / 256
    area, ratio = widths * heights, widths / heights
    # Averaging at the border of a view costs up to a pixel of 64 a side.
    assert 0.22 < area.min() < 0.30
    assert area.max() > 0.9
    assert 0.72 < ratio.min() < 0.85
    assert 1.2 < ratio.max() < 1.39
    flipped = np.mean([view[0, 0, 0] > view[0, -1, 0] for view in views])
    assert 0.4 < flipped < 0.6  # 4 standard deviations of 400 throws
    assert all(view[0, 0, 1] < view[-1, 0, 1] for view in views)  # never upside down


def test_augment_depends_on_the_seed_alone() -> None:
    image = noise(80, 60)
    assert np.array_equal(augment(image, 32, (1, 2, 3)), augment(image, 32, (1, 2, 3)))
    views = {augment(image, 32, seed).tobytes() for seed in [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3)]}
    assert len(views) == 4


@pytest.mark.parametrize("size", [(1, 1), (400, 3), (3, 400)])
def test_augment_takes_images_of_any_shape(size: tuple[int, int]) -> None:
    assert augment(noise(*size), 32, (0,)).shape == (32, 32, 3)


# --- reading in threads


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


# --- fingerprint


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


def test_digests_are_remembered_by_size_and_time(pets: Path, cache: Path) -> None:
    before = fingerprint(pets)
    target = pets / "val/cat/a.png"
    stat = target.stat()
    # The same size and time to the nanosecond: only a cache can take this for the old file.
    target.write_bytes(b"\0" * stat.st_size)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(pets) == before
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert fingerprint(pets) != before
    assert len(list(cache.rglob("*"))) == 2  # one folder and one file in it: nothing temporary is left


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
    content["files"]["cat/a.png"][2] = json.loads(digest)
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


# --- Hugging Face


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf-cache")


def table(labels: list[int], names: list[str] | None = None, label: str = "label", size: int = 20):  # type: ignore[no-untyped-def]
    """A `datasets.Dataset` with a PNG a label; a ClassLabel where `names` are given, plain integers otherwise."""
    import datasets  # type: ignore[import-untyped]

    feature = datasets.ClassLabel(names=names) if names else datasets.Value("int32")
    pictures = [{"bytes": encoded(noise(size, size, index)), "path": None} for index in range(len(labels))]
    features = datasets.Features({"id": datasets.Value("int64"), "picture": datasets.Image(), label: feature})
    columns = {"id": list(range(len(labels))), "picture": pictures, label: labels}
    return datasets.Dataset.from_dict(columns, features=features)


def pixels(split: Split, index: int) -> NDArray[np.uint8]:
    return np.array(split.image(index))


@pytest.mark.usefixtures("hub_cache")
def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    import datasets

    parts: Any = {"train": table([1, 0, 1], ["no", "yes"]), "test": table([0, 1], ["no", "yes"])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    data = open_data(f"hf:{tmp_path / 'saved'}")
    assert data.classes == ("no", "yes")
    assert (train_of(data).name, train_of(data).labels.tolist()) == ("train", [1, 0, 1])
    assert (data.val.name, data.val.labels.tolist()) == ("val", [0, 1])
    assert data.val.ids == ("test[0]", "test[1]")
    assert data.image_size == 20
    assert np.array_equal(pixels(data.val, 1), np.array(noise(20, 20, 1)))


@pytest.mark.usefixtures("hub_cache")
def test_one_saved_table_is_val_and_keeps_a_selection_of_rows(tmp_path: Path) -> None:
    table([5, 4, 3, 2]).select([3, 1]).save_to_disk(tmp_path / "one")
    data = open_data(f"hf:{tmp_path / 'one'}")
    assert data.train is None
    assert data.val.labels.tolist() == [2, 4]
    assert np.array_equal(pixels(data.val, 0), np.array(noise(20, 20, 3)))


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("place", ["", "data"])
def test_a_folder_of_parquet_files_in_shards(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "pq" / place
    folder.mkdir(parents=True)
    table([0, 1]).to_parquet(folder / "train-00000-of-00002.parquet")
    table([2]).to_parquet(folder / "train-00001-of-00002.parquet")
    table([1, 1]).to_parquet(folder / "validation-00000-of-00001.parquet")
    table([-1]).to_parquet(folder / "test-00000-of-00001.parquet")  # hidden labels, in a split not used
    data = open_data(f"hf:{tmp_path / 'pq'}")
    assert train_of(data).labels.tolist() == [0, 1, 2]
    assert data.val.ids == ("validation[0]", "validation[1]")
    assert data.classes == ("0", "1", "2")


@pytest.mark.usefixtures("hub_cache")
def test_a_parquet_file_is_the_same_split_as_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pq"
    folder.mkdir()
    table([0, 1], ["a", "b"]).to_parquet(folder / "test.parquet")
    table([1, 0], ["a", "b"]).to_parquet(folder / "train.parquet")
    alone, whole = open_data(f"hf:{folder / 'test.parquet'}"), open_data(f"hf:{folder}")
    assert alone.train is None
    assert alone.val.fingerprint == whole.val.fingerprint != train_of(whole).fingerprint


@pytest.mark.usefixtures("hub_cache")
def test_images_in_a_plain_struct_column_without_metadata(tmp_path: Path) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    cells = [{"bytes": encoded(noise(12, 12, index)), "path": "x.png"} for index in range(2)]
    pq.write_table(pa.table({"image": cells, "fine_label": [3, 1]}), tmp_path / "plain.parquet")
    data = open_data(f"hf:{tmp_path / 'plain.parquet'}")
    assert (data.val.labels.tolist(), data.classes) == ([3, 1], ("0", "1", "2", "3"))
    assert np.array_equal(pixels(data.val, 1), np.array(noise(12, 12, 1)))


@pytest.mark.usefixtures("hub_cache")
def test_the_fingerprint_of_rows_sees_content_and_labels(tmp_path: Path) -> None:
    tables = {"base": table([0, 1]), "label": table([1, 1]), "content": table([0, 1], size=21), "same": table([0, 1])}
    for name, rows in tables.items():
        (tmp_path / name).mkdir()
        rows.to_parquet(tmp_path / name / "val.parquet")
    prints = {name: open_data(f"hf:{tmp_path / name}").val.fingerprint for name in tables}
    assert prints["base"] == prints["same"]
    assert len(set(prints.values())) == 3


@pytest.mark.usefixtures("hub_cache")
def test_a_row_that_does_not_decode_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = encoded(noise(50, 50))
    cells = [{"bytes": good}, {"bytes": good[: len(good) // 2]}, {"bytes": None}]
    pq.write_table(pa.table({"image": cells, "label": [0, 0, 0]}), tmp_path / "test.parquet")
    split = open_data(f"hf:{tmp_path / 'test.parquet'}").val
    for index in (1, 2):
        with pytest.raises(DataError, match=rf"^cannot decode test\[{index}\]: "):
            split.image(index)


@pytest.mark.usefixtures("hub_cache")
def test_tables_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    import datasets

    cases = {
        "hidden": (table([-1, 0]), ["label -1", "labelled"]),
        "unlabelled": (table([0]).remove_columns("label"), ["id, picture", "ClassLabel"]),
        "imageless": (table([0]).remove_columns("picture"), ["id, label", "images"]),
    }
    for name, (rows, words) in cases.items():
        rows.save_to_disk(tmp_path / name)
        opening_fails(f"hf:{tmp_path / name}", name, *words)
    datasets.DatasetDict({"train": table([0]), "extra": table([0])}).save_to_disk(tmp_path / "odd")
    opening_fails(f"hf:{tmp_path / 'odd'}", "train, extra", "validation, val, test")


@pytest.mark.usefixtures("hub_cache")
def test_paths_that_cannot_be_loaded_are_named(tmp_path: Path) -> None:
    opening_fails("hf:/no/such/folder", "/no/such/folder does not exist", "expected")
    opening_fails("hf:missing.parquet", "missing.parquet does not exist")
    opening_fails(f"hf:{tmp_path}", str(tmp_path), "no parquet files")
    (tmp_path / "test.parquet").write_bytes(b"not parquet")
    opening_fails(f"hf:{tmp_path}", str(tmp_path), "cannot load", "parquet")


@pytest.mark.usefixtures("hub_cache")
def test_opening_is_silent_and_leaves_the_settings_of_datasets_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from datasets.utils import logging  # type: ignore[import-untyped]

    table([0, 1]).to_parquet(tmp_path / "test.parquet")
    before = (logging.is_progress_bar_enabled(), logging.get_verbosity())
    capfd.readouterr()
    open_data(f"hf:{tmp_path / 'test.parquet'}")
    assert capfd.readouterr() == ("", "")
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before


# --- the shared sample


@needs_sample
def test_the_imagenet_sample() -> None:
    data = open_data(f"imagefolder:{SAMPLE / 'imagenet-sample'}")
    assert (len(train_of(data)), len(data.val), len(data.classes), data.image_size) == (300, 700, 1000, 224)
    folder = data.val.ids[0].split("/")[1]
    assert data.classes[data.val.labels[0]] == folder


@needs_sample
@pytest.mark.usefixtures("hub_cache")
def test_the_cifar_subset() -> None:
    data = open_data(f"hf:{SAMPLE / 'cifar10-subset'}")
    assert (len(train_of(data)), len(data.val), len(data.classes), data.image_size) == (20_000, 5_000, 10, 32)
    assert data.classes[0] == "airplane"
    assert load_images(data.val, [0, 4999], 32).shape == (2, 32, 32, 3)


@needs_sample
def test_original_photographs_are_preprocessed_as_torchvision_does() -> None:
    from torchvision import transforms

    split = open_data(f"imagefolder:{SAMPLE / 'imagenet-original'}").val
    reference = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    indices = list(range(0, len(split), 10))
    files = [SAMPLE / "imagenet-original" / split.ids[index] for index in indices]
    expected = np.stack([np.array(reference(Image.open(file).convert("RGB"))) for file in files])
    assert np.array_equal(load_images(split, indices, 224), expected)
