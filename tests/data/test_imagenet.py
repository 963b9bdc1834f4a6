"""`imagenet:PATH`: the original archives, read in place, are the same data set as torchvision's folders; else refused.

The archives here are the real ones in small: 1,000 classes, one validation image and two training images of each.
"""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from coreml_prune_bench.data import (
    Split,
    imagenet,
    load_images,
    open_data,
)
from tests.data.samples import opening_fails

IDS = Path(imagenet.__file__).parent.joinpath("imagenet_wordnet_ids.txt").read_text().split()
FIRST_LABELS = [65, 970, 230, 809, 516, 57, 334, 415, 674, 332]  # caffe's val.txt

# The devkit numbers classes in an order of its own; so does this one.
NUMBER_OF = {wordnet_id: number + 1 for number, wordnet_id in enumerate(np.random.RandomState(1).permutation(IDS))}
VAL_LABELS = FIRST_LABELS + np.random.RandomState(2).permutation(sorted(set(range(1000)) - set(FIRST_LABELS))).tolist()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "VAL_IMAGES", 1000)
    monkeypatch.setattr(imagenet, "TRAIN_IMAGES", 2000)


def jpeg(seed: int) -> bytes:
    """A small image of one colour, another for each seed."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (seed % 256, seed // 256, 100)).save(buffer, "JPEG")
    return buffer.getvalue()


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def meta_mat(ids: list[str]) -> bytes:
    """meta.mat as the devkit's readme describes it: 1,000 classes, then the synsets above them."""
    names = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height"]
    synsets = np.zeros(len(ids) + 2, [(name, object) for name in [*names, "num_train_images"]])
    for index, wordnet_id in enumerate(sorted(ids, key=lambda id_: NUMBER_OF.get(id_, 0))):
        synsets[index] = (float(index + 1), wordnet_id, "a, b", "a thing", 0.0, [], 0.0, 2.0)
    synsets[-2:] = [(1001.0 + n, f"n0000000{n}", "above", "a group", 2.0, [1.0, 2.0], 1.0, 0.0) for n in range(2)]
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets.reshape(-1, 1)})
    return buffer.getvalue()


TRUTH = "\n".join(str(NUMBER_OF[IDS[label]]) for label in VAL_LABELS) + "\n"


def write_devkit(folder: Path, truth: str = TRUTH, meta: bytes | None = None) -> None:
    files = {
        "ILSVRC2012_devkit_t12/readme.txt": b"read me",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta_mat(IDS) if meta is None else meta,
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_of(files, "w:gz"))


def val_images() -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{number:08}.JPEG": jpeg(number) for number in range(1, 1001)}


def train_images() -> dict[str, dict[str, bytes]]:
    """By WordNet id; numbers that do not sort as their digits do."""
    return {id_: {f"{id_}_{n}.JPEG": jpeg(7 * k + n) for n in (9, 10)} for k, id_ in enumerate(IDS)}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three archives."""
    folder = tmp_path_factory.mktemp("archives")
    write_devkit(folder)
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(val_images()))
    # Not in the order of the ids, as no order is promised.
    inner = {f"{id_}.tar": tar_of(files) for id_, files in reversed(train_images().items())}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    return folder


@pytest.fixture
def archives(originals: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(originals, tmp_path / "imagenet"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What torchvision makes of the archives."""
    folder = tmp_path_factory.mktemp("unpacked")
    for id_, files in train_images().items():
        (folder / "train" / id_).mkdir(parents=True)
        (folder / "val" / id_).mkdir(parents=True)
        for name, content in files.items():
            (folder / "train" / id_ / name).write_bytes(content)
    for (name, content), label in zip(val_images().items(), VAL_LABELS, strict=True):
        (folder / "val" / IDS[label] / name).write_bytes(content)
    return folder


def train_of(spec: str) -> Split:
    train = open_data(spec).train
    assert train is not None
    return train


def test_labels_are_those_that_torchvision_reads_from_the_devkit(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import imagenet as reference

    monkeypatch.setattr(reference, "_verify_archive", lambda *arguments: None)
    shutil.copy(originals / "ILSVRC2012_devkit_t12.tar.gz", tmp_path)
    reference.parse_devkit_archive(tmp_path)
    _, wordnet_ids = reference.load_meta_file(tmp_path)
    val = open_data(f"imagenet:{originals}").val
    expected = {
        f"val/{wordnet_id}/ILSVRC2012_val_{number:08}.JPEG": IDS.index(wordnet_id)
        for number, wordnet_id in enumerate(wordnet_ids, start=1)
    }
    assert dict(zip(val.ids, val.labels.tolist(), strict=True)) == expected
    assert val.classes == tuple(IDS)


def test_archives_and_folders_are_the_same_data_set(originals: Path, unpacked: Path) -> None:
    folders = open_data(f"imagefolder:{unpacked}")
    for spec in (f"imagenet:{originals}", f"imagenet:{unpacked}"):
        data = open_data(spec)
        assert (data.val.ids, data.val.fingerprint) == (folders.val.ids, folders.val.fingerprint)
        assert folders.train is not None
        assert (train_of(spec).ids, train_of(spec).fingerprint) == (folders.train.ids, folders.train.fingerprint)
        assert np.array_equal(load_images(data.val, [0, 500, 999], 8), load_images(folders.val, [0, 500, 999], 8))


def test_a_flat_folder_and_an_unpacked_devkit_do_as_well(originals: Path, tmp_path: Path) -> None:
    with tarfile.open(originals / "ILSVRC2012_devkit_t12.tar.gz") as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # from 3.11.4 on
        tar.extractall(tmp_path)
    (tmp_path / "val").mkdir()
    for name, content in val_images().items():
        (tmp_path / "val" / name).write_bytes(content)
    data = open_data(f"imagenet:{tmp_path}")
    assert data.train is None
    assert data.val.fingerprint == open_data(f"imagenet:{originals}").val.fingerprint


def test_an_archive_is_read_through_once(originals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_data(f"imagenet:{originals}").val.fingerprint
    monkeypatch.setattr("coreml_prune_bench.data.tars._members", None)  # reading it again would fail
    monkeypatch.setattr("coreml_prune_bench.data.tars.TarSource._digest", None)
    assert open_data(f"imagenet:{originals}").val.fingerprint == before


def test_a_changed_archive_is_read_again(archives: Path) -> None:
    before = open_data(f"imagenet:{archives}").val.fingerprint
    changed = val_images() | {"ILSVRC2012_val_00000500.JPEG": jpeg(5000)}
    (archives / "ILSVRC2012_img_val.tar").write_bytes(tar_of(changed))
    assert open_data(f"imagenet:{archives}").val.fingerprint != before


def test_the_training_archive_is_left_alone_until_it_is_used(archives: Path) -> None:
    (archives / "ILSVRC2012_img_train.tar").write_bytes(b"x" * 2000)
    data = open_data(f"imagenet:{archives}")
    assert len(data.val) == 1000
    with pytest.raises(Exception, match=r"cannot read .*ILSVRC2012_img_train\.tar"):
        _ = data.train


# --- what is wrong, in one line


def test_missing_files_are_named(archives: Path, tmp_path: Path) -> None:
    opening_fails(f"imagenet:{tmp_path / 'nowhere'}", "nowhere is not a folder", "ILSVRC2012_img_val.tar")
    (archives / "ILSVRC2012_img_val.tar").unlink()
    opening_fails(f"imagenet:{archives}", "holds no validation images", "ILSVRC2012_img_val.tar or val/")
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    opening_fails(f"imagenet:{archives}", "lacks ILSVRC2012_devkit_t12.tar.gz")


def test_an_archive_that_was_cut_off(archives: Path) -> None:
    val = archives / "ILSVRC2012_img_val.tar"
    content = val.read_bytes()
    for length in (len(content) // 2, len(content) // 2 // 512 * 512, 100):
        val.write_bytes(content[:length])
        opening_fails(f"imagenet:{archives}", "ILSVRC2012_img_val.tar")


def test_an_archive_without_one_image(archives: Path) -> None:
    images = val_images()
    del images["ILSVRC2012_val_00000700.JPEG"]
    (archives / "ILSVRC2012_img_val.tar").write_bytes(tar_of(images))
    opening_fails(f"imagenet:{archives}", "no ILSVRC2012_val_00000700.JPEG", "is it complete?")


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (TRUTH[: len(TRUTH) // 2], ["labels: expected 1,000"]),
        (TRUTH.replace("\n", "\nx\n", 1).rsplit("\n", 2)[0], ["line 2: 'x'", "expected 1 to 1,000"]),
        (TRUTH.replace(TRUTH.split()[20], "1001", 1), ["'1001'"]),
        ("\n".join(["7", *TRUTH.split()[1:]]), ["gives class", "expected 1 of each class"]),
        ("\n".join(sorted(TRUTH.split())), ["makes ILSVRC2012_val_00000001.JPEG one of", "which is one of n01751748"]),
    ],
)
def test_a_wrong_label_file(archives: Path, truth: str, words: list[str]) -> None:
    write_devkit(archives, truth)
    opening_fails(f"imagenet:{archives}", "ILSVRC2012_validation_ground_truth.txt", *words)


@pytest.mark.parametrize(
    "meta",
    [b"", b"no mat file" * 100, meta_mat(IDS[:-1]), meta_mat([*IDS[:-1], "n99999999"])],
    ids=["empty", "no-mat-file", "a-class-short", "an-unknown-class"],  # the files themselves hold the time
)
def test_a_wrong_class_file(archives: Path, meta: bytes) -> None:
    write_devkit(archives, meta=meta)
    opening_fails(f"imagenet:{archives}", "data/meta.mat", "expected")


def test_a_devkit_that_is_none(archives: Path) -> None:
    (archives / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"\x1f\x8b no gzip")
    opening_fails(f"imagenet:{archives}", "ILSVRC2012_devkit_t12.tar.gz", "expected the devkit")


def test_class_folders_that_are_not_complete(tmp_path: Path) -> None:
    for id_ in IDS[:-1]:
        (tmp_path / "val" / id_).mkdir(parents=True)
    opening_fails(f"imagenet:{tmp_path}", f"lacks class {IDS[-1]}")
    (tmp_path / "val" / IDS[-1]).mkdir()
    (tmp_path / "val" / IDS[0] / "a.JPEG").write_bytes(jpeg(0))
    opening_fails(f"imagenet:{tmp_path}", "holds 1 images", "ImageNet-1k's 1,000", "imagefolder:PATH")
    (tmp_path / "val" / "extra").mkdir()
    opening_fails(f"imagenet:{tmp_path}", "holds extra, which is no class of ImageNet-1k")


def test_a_training_archive_that_is_not_complete(archives: Path) -> None:
    train = train_images()
    del train[IDS[3]][f"{IDS[3]}_9.JPEG"]
    tar = archives / "ILSVRC2012_img_train.tar"
    tar.write_bytes(tar_of({f"{id_}.tar": tar_of(files) for id_, files in train.items()}))
    with pytest.raises(Exception, match="holds 1,999 images: expected ImageNet-1k's 2,000"):
        train_of(f"imagenet:{archives}")
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    with pytest.raises(Exception, match=r"ILSVRC2012_img_train\.tar"):
        train_of(f"imagenet:{archives}")


def test_a_known_image_in_the_folder_of_another_class(tmp_path: Path) -> None:
    """In every layout with folders of WordNet ids: the first validation image is a sea snake."""
    folder = tmp_path / "val" / "n01440764"
    folder.mkdir(parents=True)
    (folder / "ILSVRC2012_val_00000001.JPEG").write_bytes(jpeg(1))
    opening_fails(f"imagefolder:{tmp_path}", "ILSVRC2012_val_00000001.JPEG is of class n01751748", "imagenet:PATH")
