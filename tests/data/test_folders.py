"""`imagefolder:`, layout, class order and image size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coreml_prune_bench.data import (
    open_data,
)
from tests.data.samples import opening_fails, save, train_of, truncate
from tests.sample import SAMPLE, needs_sample


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


@pytest.mark.parametrize(
    ("sides", "expected"),
    [([(500, 300), (300, 400), (224, 224)], 224), ([(48, 64), (60, 50), (500, 500)], 50), ([(32, 32)] * 3, 32)],
)
def test_image_size_is_224_or_the_smaller_median(tmp_path: Path, sides: list[tuple[int, int]], expected: int) -> None:
    for index, (width, height) in enumerate(sides):
        save(tmp_path / f"val/cat/{index}.png", Image.new("RGB", (width, height)))
    assert open_data(f"imagefolder:{tmp_path}").image_size == expected
