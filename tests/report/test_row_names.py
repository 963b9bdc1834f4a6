"""Rows by the names that people type: what is written whole is that row, whatever else has it as a part."""

import numpy as np
import pytest

from coreml_prune_bench.core.errors import BenchError
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
