"""Before a run measures for hours it says what is stale, and why."""

import pytest

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.staleness import what_is_missing
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.records.store import Store


@pytest.fixture
def cell(tiny_suite):
    """One that `tiny_run` has measured."""
    (cell, *_) = (one for one in lay_out(load_suite(str(tiny_suite)), None) if one.algorithm == "sparse-gpt")
    return cell


@pytest.fixture
def record(cell, tiny_run):
    (record,) = (one for one in tiny_run.records if one.key == cell.key)
    return record


@pytest.fixture
def said(cell, record, tmp_path):
    """What is said where the folder holds that record with other content, and so another key."""

    def say(**changes: object) -> list[str]:
        store = Store(tmp_path / "results")
        store.write_record(f"{cell.record_stem}--another", record.model_copy(update={"key": "another", **changes}))
        return what_is_missing([cell], store)

    return say


def test_a_record_names_the_code_behind_it(record):
    assert "coreml_prune_bench.models.pruning.sparse_gpt.prune" in record.code  # through an entry string
    assert "coreml_prune_bench.runtimes.portable.ops.convolution" in record.code  # with its folder
    assert not any(module.startswith(("coreml_prune_bench.report", "coreml_prune_bench.cli")) for module in record.code)


def test_the_module_that_changed_is_named_and_the_time_that_it_took(record, said):
    code = record.code | {"coreml_prune_bench.models.training": "0" * 12}
    provenance = record.provenance.model_copy(update={"build_seconds": 3600.0, "evaluate_seconds": 120.0})
    head, reason, time = said(code=code, provenance=provenance)
    assert head == "1 of 1 cells to measure are stale: measured before, and changed since:"
    assert reason == "  1 x code: models.training"
    assert time == "  before, they took 1:02:00 in all"


def test_modules_that_came_and_went_are_changes(record, said):
    assert "code: models.gone" in said(code=record.code | {"coreml_prune_bench.models.gone": "0" * 12})[1]
    fewer = {module: digest for module, digest in record.code.items() if not module.endswith("models.training")}
    assert "code: models.training" in said(code=fewer)[1]


def test_many_modules_are_counted(said, record):
    reason = said(code=dict.fromkeys(record.code, "0" * 12))[1]
    assert reason.endswith(f" and {len(record.code) - 5} more")


def test_other_images_weights_and_configs_are_told_from_code(record, said):
    assert said(data=record.data.model_copy(update={"fingerprint": "x"}))[1] == "  1 x the images"
    assert said(data=record.data.model_copy(update={"train_fingerprint": "x"}))[1] == "  1 x the training images"
    assert said(network=record.network.model_copy(update={"weights": "x"}))[1] == "  1 x the weights"
    assert "the config" in said()[1]


def test_a_record_of_an_older_schema_is_stale_and_says_so(said):
    assert "did not say which code it ran" in said(code={})[1]


def test_cells_that_nobody_measured_are_new_and_need_no_reason(cell, tmp_path):
    assert what_is_missing([cell], Store(tmp_path / "results")) == []
    assert what_is_missing([], Store(tmp_path / "results")) == []
