"""`hf:PATH`, tables of images on this machine."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import (
    open_data,
)
from tests.data.samples import encoded, noise, opening_fails, pixels, table, train_of


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


@pytest.mark.usefixtures("hub_cache")
def test_another_parquet_file_of_the_same_time_is_unpacked_again(tmp_path: Path) -> None:
    for labels in ([0, 1], [1, 0]):
        file = tmp_path / "new.parquet"
        table(labels).to_parquet(file)
        os.utime(file, ns=(0, 0))  # as unpacked from an archive
        file.rename(tmp_path / "cats.parquet")
        for _ in range(2):
            assert open_data(f"hf:{tmp_path / 'cats.parquet'}").val.labels.tolist() == labels
