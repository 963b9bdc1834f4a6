"""A results folder held to a baseline or to rules: which of its rows count."""

from pathlib import Path

import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.gating.folder import gate_folder
from tests.factories import accuracy_record, write_records

HALF, BEST = [True, False] * 50, [True] * 100


def results(folder: Path, **hits: list[bool]) -> Path:
    return write_records(folder, *(accuracy_record(bits, model=model) for model, bits in hits.items()))


def test_rows_of_other_networks_are_neither_held_to_rules_nor_missed(tmp_path):
    first_try = results(tmp_path / "run", mine=BEST, tried=HALF)
    assert gate_folder(first_try, require=["top1 >= 90"]).exit_code == 1
    report = gate_folder(first_try, require=["top1 >= 90"], models=["mine"])
    assert [(row.key.model, row.verdict) for row in report.rows] == [("mine", "same")]
    alone = results(tmp_path / "alone", mine=BEST)
    assert gate_folder(alone, first_try).exit_code == 1  # "tried" is missing
    assert gate_folder(alone, first_try, models=["mine"]).exit_code == 0


def test_a_network_that_got_worse_is_still_found(tmp_path):
    before, after = results(tmp_path / "before", a=BEST, b=BEST), results(tmp_path / "after", a=HALF, b=BEST)
    assert gate_folder(after, before, models=["a"]).exit_code == 1
    assert gate_folder(after, before, models=["b"]).exit_code == 0


def test_a_network_without_a_row_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(BenchError, match=r"no row of mime in .*expected some of mine; did you mean 'mine'\?"):
        gate_folder(results(tmp_path, mine=BEST), require=["top1 >= 90"], models=["mime"])
