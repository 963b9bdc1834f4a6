"""The halves of a data set's validation images: one to choose by, one that judges."""

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


def test_a_data_set_of_one_image_has_no_parts(tmp_path, images):
    for file in list((images / "val").rglob("*.jpg"))[1:]:
        file.unlink()
    with pytest.raises(DataError, match="1 images cannot be divided"):
        open_data_or_part(f"imagefolder:{images}#final")
