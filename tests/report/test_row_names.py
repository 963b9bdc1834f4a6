"""Rows by the names that people type: what is written whole is that row, whatever else has it as a part."""

import numpy as np
import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.report.config_rows import config_rows
from coreml_prune_bench.report.row_names import find_row, row_name
from tests.factories import accuracy_record

CONFIGS = ("Sparsity 50%", "Sparsity 50%, BatchNorm re-estimated")


def rows(configs=CONFIGS, model="m"):
    records = []
    for config in configs:
        pruning = {
            "algorithm": "sparse-gpt", "title": "SparseGPT", "config": config, "sparsity": 0.5, "scope": "s",
            "settings": {},
        }  # fmt: skip
        one = accuracy_record(np.ones(4, bool), model=model, algorithm="sparse-gpt", pruning=pruning)
        records += [one, one.model_copy(update={"package_format": "aimodel", "key": f"{one.key[:-1]}f"})]
    return config_rows(records)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("suffix", ["", ", .aimodel"])
def test_a_whole_name_is_one_row(config: str, suffix: str) -> None:
    name = f"m, SparseGPT, {config}{suffix}"
    assert row_name(find_row(rows(), name)) == name


def test_a_part_of_several_names_lists_them() -> None:
    with pytest.raises(BenchError, match=r"'m, batchnorm' is 2 rows; say which: .*re-estimated\"; .*\.aimodel\""):
        find_row(rows(), "m, batchnorm")
    assert row_name(find_row(rows(), "m, BATCHNORM, aimodel")).endswith(".aimodel")


def test_a_part_that_is_whole_in_one_name_and_a_piece_of_another_chooses_neither() -> None:
    configs = ("50%, classifier too, by layer", "Unstructured Sparsity 50%")
    with pytest.raises(BenchError, match="'m, SparseGPT, 50%' is 4 rows; say which"):
        find_row(rows(configs), "m, SparseGPT, 50%")
    assert row_name(find_row(rows(configs), "m, unstructured sparsity 50%")).endswith("Sparsity 50%")


def test_a_network_that_is_written_whole_is_no_other() -> None:
    both = [*rows(CONFIGS[:1], model="resnet50"), *rows(CONFIGS[:1], model="resnet50_v2")]
    assert row_name(find_row(both, "resnet50, 50%, aimodel")).startswith("resnet50,")
    with pytest.raises(BenchError, match="'resnet, aimodel' is 2 rows"):
        find_row(both, "resnet, aimodel")


def on(spec: str, images: int, *, suite: str = "s", fingerprint: str = "f", sha256: str = "same") -> Record:
    one = accuracy_record(
        np.ones(images, bool),
        model="m",
        sha256=sha256,
        suite=suite,
        data={"spec": spec, "fingerprint": fingerprint * 64, "place": f"{spec}{fingerprint}"},
    )
    subject = f"{spec} {fingerprint}"
    return one.model_copy(update={"subject_key": subject, "config_key": subject, "key": f"{subject} {suite}"})


NAME = "m, sparse-gpt, Unstructured Sparsity 50%"


def test_rows_that_differ_in_data_alone_are_told_by_it() -> None:
    both = config_rows([on("digits", 40), on("digits#5", 5), on("imagefolder:a, b", 6)])
    with pytest.raises(BenchError) as refusal:
        find_row(both, NAME)
    names = [f"{NAME}, digits", f"{NAME}, digits#5", f"{NAME}, imagefolder:a, b"]
    assert str(refusal.value).endswith("is 3 rows; say which: " + "; ".join(f'"{name}"' for name in names))
    for name, images in zip(names, (40, 5, 6), strict=True):
        assert len(find_row(both, name).labels) == images
    assert len(find_row(both, "DIGITS, 50%").labels) == 40
    # A piece of a name is that first, whatever a suite is called.
    called_so = config_rows([on("digits", 40), accuracy_record([True], model="other", suite="sparsity")])
    assert len(find_row(called_so, "m, sparsity").labels) == 40


def test_rows_of_two_suites_or_two_folders_of_one_spelling_are_told_too() -> None:
    found = config_rows([on("x", 1), on("x", 2, suite="t"), on("x", 3, fingerprint="e")])
    with pytest.raises(BenchError) as refusal:
        find_row(found, "m")
    names = [f"{NAME}, s, images ffffffff", f"{NAME}, t", f"{NAME}, s, images eeeeeeee"]
    assert all(f'"{name}"' in str(refusal.value) for name in names)
    assert [len(find_row(found, name).labels) for name in names] == [1, 2, 3]


def test_rows_of_one_package_are_one_where_that_is_asked_for() -> None:
    same = config_rows([on("digits#5", 5), on("digits", 40)])
    assert len(find_row(same, "m", for_package=True).labels) == 40
    with pytest.raises(BenchError, match="is 2 rows"):
        find_row(config_rows([on("digits#5", 5), on("digits", 40, sha256="other")]), "m", for_package=True)
