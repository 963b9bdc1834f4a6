"""Opening a data set by its spec; the digits."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import (
    open_data,
)
from tests.data.samples import opening_fails, train_of


@pytest.mark.parametrize("spec", ["", "mnist", "imagefolder", "imagefolder:", "hf:", "digits:x", "folder:/x"])
def test_an_unknown_spec_is_answered_with_the_known_ones(spec: str) -> None:
    opening_fails(spec, repr(spec), "digits", "imagefolder:PATH", "hf:NAME")


@pytest.mark.parametrize(
    ("holds", "kind"),
    [
        ("a/", "imagefolder"),
        ("dataset_dict.json", "hf"),
        ("data/train-0.parquet", "hf"),
        ("ILSVRC2012_img_val.tar", "imagenet"),
    ],
)
def test_a_bare_folder_is_answered_with_the_spec_that_is_meant(tmp_path: Path, holds: str, kind: str) -> None:
    place = tmp_path / "x" / holds
    (place if holds.endswith("/") else place.parent).mkdir(parents=True)
    if not holds.endswith("/"):
        place.write_bytes(b"")
    opening_fails(str(tmp_path / "x"), f"did you mean '{kind}:{tmp_path / 'x'}'?")


@pytest.mark.parametrize(
    ("spec", "meant"),
    [("imagefoler:/x", "imagefolder:/x"), ("ImageNet:/x", "imagenet:/x"), ("digit", "digits"), ("HF:a/b", "hf:a/b")],
)
def test_a_misspelled_kind_is_answered_with_the_nearest(spec: str, meant: str) -> None:
    opening_fails(spec, f"did you mean {meant!r}?")


def test_images_that_were_never_fetched_are_named_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    data = open_data(f"imagefolder:{tmp_path}")
    with pytest.raises(DataError, match=r"a/1\.png: is a Git LFS pointer, .*'git lfs pull'"):
        data.val.image(0)


def test_importing_costs_no_torch_no_sklearn_and_no_datasets() -> None:
    heavy = {"torch", "torchvision", "sklearn", "datasets"}
    code = f"import sys, coreml_prune_bench.data; print(*{heavy} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


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
