"""The halves of a data set's validation images: one to choose by, one that judges."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import open_data
from coreml_prune_bench.data.halves import PARTS, open_data_or_part, part_of


@pytest.mark.parametrize("with_train", [True, False])
def test_the_parts_and_the_training_images_have_no_image_in_common(with_train):
    whole = open_data("digits")
    if not with_train:
        whole = replace(whole, open_train=None)
    selection, final = (part_of(whole, part) for part in PARTS)
    splits = [selection.val, final.val, selection.train]
    assert selection.train.ids == final.train.ids
    ids = [name for split in splits for name in split.ids]
    assert len(ids) == len(set(ids))
    assert [len(split) for split in splits] == ([200, 200, 1397] if with_train else [133, 134, 133])


def test_a_part_has_the_images_and_labels_of_the_whole():
    whole, part = open_data("digits").val, open_data_or_part("digits#final").val
    for place in (0, 99, 199):
        there = whole.ids.index(part.ids[place])
        assert part.labels[place] == whole.labels[there]
        assert np.array_equal(part.image(place), whole.image(there))
    assert part.fingerprint != open_data_or_part("digits#selection").val.fingerprint
    assert part.fingerprint == open_data_or_part("digits#final").val.fingerprint


@pytest.mark.parametrize("part", ["0", "-3", "abc", "5.0", ""])
def test_what_is_no_part_is_told_as_such_and_a_folder_called_so_is_a_folder(images, part):
    spec = f"imagefolder:{images}#{part}"
    told = f"{spec}: {part!r} is no part of imagefolder:{images}: expected #selection, #final or a number of images"
    with pytest.raises(DataError, match=re.escape(told)):
        open_data_or_part(spec)
    with pytest.raises(DataError, match=f"^digits#final#{part}: {part!r} is no part of digits#final: "):
        open_data_or_part(f"digits#final#{part}")
    shutil.copytree(images, f"{images}#{part}")
    assert len(open_data_or_part(spec).val) == 12
    assert len(open_data_or_part(f"{spec}#2").val) == 2
    with pytest.raises(DataError, match="nowhere#0 is not a folder"):
        open_data_or_part(f"imagefolder:{images}/nowhere#0")


def test_a_data_set_of_one_image_has_no_parts(tmp_path, images):
    for file in list((images / "val").rglob("*.jpg"))[1:]:
        file.unlink()
    with pytest.raises(DataError, match="1 images cannot be divided"):
        open_data_or_part(f"imagefolder:{images}#final")
