"""`imagefolder:`, layout, class order and image size."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coreml_prune_bench.data import open_data, path_of
from coreml_prune_bench.data.folders import IMAGE_SUFFIXES
from coreml_prune_bench.data.halves import from_any_folder
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


def test_torchvisions_endings_are_those_that_count() -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS  # type: ignore[import-untyped]

    assert set(IMG_EXTENSIONS) == IMAGE_SUFFIXES


def test_what_is_left_out_is_told_with_how_many_and_systems_files_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cat/a.tif", "cat/b.PPM", "cat/c.gif", "cat/d.gif", "cat/.hidden.png", "cat/.trash/e.png", "f.png"):
        save(tmp_path / "val" / name)
    for name in ("cat/LICENSE", "cat/Thumbs.db", "cat/._a.tif", "cat/@eaDir/a.tif", "__MACOSX/cat/._a.png"):
        (tmp_path / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / name).write_bytes(b"\0")
    data = open_data(f"imagefolder:{tmp_path}")
    assert (data.classes, data.val.ids) == (("cat",), ("val/cat/a.tif", "val/cat/b.PPM"))
    told = "warning: {}: 6 files are left out (2 .gif, 1 beside the class folders, 1 hidden, 1 in hidden folders, ...)"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told.format(tmp_path / "val"))


def test_linked_folders_are_followed_as_torchvision_does_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]

    save(tmp_path / "elsewhere/a.png")
    save(tmp_path / "val/cat/b.png")
    (tmp_path / "val/cat/more").symlink_to(tmp_path / "elsewhere")
    data = open_data(f"imagefolder:{tmp_path / 'val'}")
    assert [str(tmp_path / name) for name in data.val.ids] == [
        file for file, _ in ImageFolder(tmp_path / "val").samples
    ]
    assert data.val.ids == ("val/cat/b.png", "val/cat/more/a.png")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "val/cat")
    assert open_data(f"imagefolder:{tmp_path / 'val'}").val.ids == data.val.ids


def test_a_class_folder_without_an_image_is_named_unless_the_order_is_given(tmp_path: Path) -> None:
    for name in ("val/cat/a.png", "val/dog/a.png", "train/cat/a.png", "train/emu/a.png"):
        save(tmp_path / name)
    (tmp_path / "val/emu").mkdir()  # has training images
    assert open_data(f"imagefolder:{tmp_path}").classes == ("cat", "dog", "emu")
    (tmp_path / "val/aaa").mkdir()
    (tmp_path / "val/zzz").mkdir()
    (tmp_path / "val/zzz/a.gif").write_bytes(b"\0")
    opening_fails(f"imagefolder:{tmp_path}", "class folders without an image", "aaa, zzz;", "1 .gif", "classes.txt")
    (tmp_path / "classes.txt").write_text("aaa\ncat\ndog\nemu\nzzz\n")
    assert open_data(f"imagefolder:{tmp_path}").val.labels.tolist() == [1, 2]


@pytest.mark.parametrize("foreign", ["__MACOSX", "@eaDir", ".ipynb_checkpoints"])
def test_folders_that_systems_make_are_no_classes_and_leave_imagenets_order(tmp_path: Path, foreign: str) -> None:
    save(tmp_path / "val/n15075141/a.png")
    save(tmp_path / "val" / foreign / "a.png")
    data = open_data(f"imagefolder:{tmp_path}")
    assert (len(data.classes), data.val.labels.tolist()) == (1000, [999])


def test_one_folder_is_one_place_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "data/val/cat/a.png")
    save(tmp_path / "other/val/cat/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    specs = ("data", "data/", "./data/../data", str(tmp_path / "data"), "link", "~/data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len({open_data(f"imagefolder:{spec}").place for spec in specs}) == 1
    assert open_data("imagefolder:other").place != open_data("imagefolder:data").place
    assert open_data("digits").place is None
    assert from_any_folder("imagefolder:link/#final") == f"imagefolder:{tmp_path.resolve() / 'data'}#final"
    assert from_any_folder("hf:someone/cats#final") == "hf:someone/cats#final"


def test_of_a_disk_that_takes_capitals_for_small_letters_a_name_is_as_it_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS: a path is found under other letters than its folder lists, and realpath leaves them."""
    (tmp_path / "Data").mkdir()
    (tmp_path / "DATA").symlink_to("Data")  # found too, and listed by nobody
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: [name for name in listed(folder) if name != "DATA"])
    monkeypatch.setattr(os.path, "realpath", os.path.abspath)
    assert path_of(f"imagefolder:{tmp_path / 'DATA'}") == tmp_path / "Data"


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
