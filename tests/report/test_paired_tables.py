"""Rows beside another algorithm's: numbers worked out by hand and by scipy, and who is whose counterpart."""

import json

import pytest
from scipy.stats import binomtest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.records.accuracy import Record
from coreml_prune_bench.report.paired_tables import pairs, render_pairs
from tests.factories import four_images as record
from tests.factories import four_images_dense as dense


def sparse_gpt(**changes: object) -> Record:
    return record(algorithm="sparse-gpt", **changes)


def test_one_trial_each_is_mcnemar_s_exact_test_as_scipy_has_it():
    # The first three images are right in one, the first in the other: two lost, none gained.
    (row,) = pairs([dense(), sparse_gpt(correct=3), record(correct=1)], "sparse-gpt")
    assert (row["against_top1_mean"], row["top1_mean"], row["top1_difference"]) == (75, 25, -50)
    assert row["p"] == row["p_holm"] == pytest.approx(binomtest(0, 2).pvalue)
    assert row["method"] == "exact McNemar"
    assert row["low"] < -50 < row["high"]


def test_agreement_is_with_the_dense_network_s_classes_and_not_with_the_labels():
    # The dense network gives 7, 7, 7 and 1, the label being 7. So does the first; the second gives 7, 1, 1 and 1.
    records = [record(algorithm="dense", correct=3), sparse_gpt(correct=3), record(correct=1)]
    (row,) = pairs(records, "sparse-gpt")
    assert (row["against_dense_agreement"], row["dense_agreement"]) == (100, 50)


def test_p_is_corrected_for_the_rows_of_the_table():
    others = [record(correct=correct, algorithm=name) for name, correct in (("a", 0), ("b", 4), ("c", 2))]
    table = pairs([sparse_gpt(correct=2), *others], "sparse-gpt")
    assert [row["p"] for row in table] == [0.5, 0.5, 1]
    assert [row["p_holm"] for row in table] == [1, 1, 1]
    table = pairs([sparse_gpt(correct=0), record(correct=4), record(correct=0, algorithm="x")], "sparse-gpt")
    assert [row["p_holm"] for row in table] == [2 * (2 * 0.5**4), 1]


def test_against_dense_every_row_has_one():
    table = pairs([dense(), sparse_gpt(), record(correct=1), record(correct=2, trial=1)], "dense")
    assert [(row["algorithm"], row["trials"], row["against_config"]) for row in table] == [
        ("sparse-gpt", 1, "Float16"),
        ("magnitude-pruner", 2, "Float16"),
    ]


def test_a_counterpart_has_the_same_sparsity_which_an_allocation_keeps():
    def asked(algorithm: str, sparsity: float | None, settings: dict[str, object] | None = None) -> Record:
        plain = record(algorithm=algorithm)
        changes = {"sparsity": sparsity, "config": f"{sparsity}", "settings": settings or {}}
        return plain.model_copy(update={"pruning": plain.pruning.model_copy(update=changes)})

    half, quarter = asked("sparse-gpt", 0.5), asked("post-training", 0.75)
    allocated = asked("magnitude-pruner", None, {"allocation": "sensitivity", "sparsity": 0.5})
    threshold = asked("by-threshold", None, {"threshold": 0.1})
    table = pairs([half, quarter, allocated, threshold], "sparse-gpt")
    assert [(row["algorithm"], row["config"], row["sparsity"]) for row in table] == [("magnitude-pruner", "None", 0.5)]


def test_against_a_config_are_the_others_of_its_algorithm():
    def named(config: str, correct: int, algorithm: str = "magnitude-pruner") -> Record:
        plain = record(algorithm=algorithm, correct=correct)
        return plain.model_copy(update={"pruning": plain.pruning.model_copy(update={"config": config})})

    records = [dense(), named("base", 1), named("longer", 4), named("cosine", 2), named("base", 3, "sparse-gpt")]
    table = pairs(records, "base")
    assert [(row["config"], row["against_config"], row["top1_difference"]) for row in table] == [
        ("longer", "base", 75),
        ("cosine", "base", 25),
    ]
    assert "each row against base of the same network and algorithm" in render_pairs(records, "base")
    with pytest.raises(BenchError, match=r"algorithm or config 'basé'.*did you mean 'base'"):
        pairs(records, "basé")


OTHER_IMAGES = {"subject_key": "z", "data": record().data.model_copy(update={"spec": "digits"}).model_dump()}
COREML = {"name": "coreml", "version": "v", "precision": "float32", "compute_units": "cpu_and_ne"}


@pytest.mark.parametrize("changes", [OTHER_IMAGES, {"runtime": COREML}], ids=lambda c: next(iter(c)))
def test_other_images_or_another_runtime_is_no_counterpart(changes: dict[str, object]):
    with pytest.raises(
        BenchError, match=r"counterpart of algorithm or config 'sparse-gpt'.*there: sparse-gpt, magnitude-pruner"
    ):
        pairs([sparse_gpt(), record(**changes)], "sparse-gpt")


def test_what_another_suite_measured_is_a_counterpart_where_the_row_s_own_has_none():
    theirs = [dense(suite="a"), sparse_gpt(suite="a", correct=3)]
    (row,) = pairs([*theirs, record(suite="b", correct=1)], "sparse-gpt")
    assert (row["suite"], row["against_top1_mean"], row["dense_agreement"]) == ("b", 75, 25)
    (row,) = pairs([*theirs, record(suite="b", correct=1), sparse_gpt(suite="b", correct=2)], "sparse-gpt")
    assert row["against_top1_mean"] == 50


def test_trials_that_failed_are_counted_and_a_row_without_any_other_is_told_to_have_failed():
    def failed(**changes: object) -> Record:
        return record(status="failed", reason="r", package=None, runtime=None, predictions=None, **changes)

    records = [dense(), sparse_gpt(correct=3), record(correct=1), failed(trial=1), failed(algorithm="x")]
    one, none = pairs(records, "sparse-gpt")
    assert (one["trials"], one["failed_trials"], one["p_holm"]) == (1, 1, 0.5)
    assert (none["trials"], none["failed_trials"], none["top1_mean"], none["p_holm"]) == (0, 1, None, None)
    text = render_pairs(records, "sparse-gpt")
    assert "| 25.00 (1 failed) |" in text
    assert "| failed " in text


def test_one_image_is_told_to_be_too_few():
    def of_one_image(one: Record) -> Record:
        assert one.predictions
        changes = {"labels": one.predictions.labels[:1], "top5": one.predictions.top5[:1]}
        return one.model_copy(update={"predictions": one.predictions.model_copy(update=changes)})

    with pytest.raises(BenchError, match="resnet50 was measured on one image; a paired test needs two"):
        pairs([of_one_image(sparse_gpt()), of_one_image(record())], "sparse-gpt")


def test_the_readable_table_and_the_machine_readable_one():
    records = [dense(), sparse_gpt(correct=3), record(correct=1, weight_bytes=250), record(correct=2, trial=1)]
    text = render_pairs(records, "sparse-gpt")
    assert "| 75.00 " in text
    assert "| 37.50 ± 17.68 |" in text  # 25 and 50: sqrt(2 * 12.5^2)
    assert "| -37.50 " in text
    assert "| 0.75 " in text  # of the size: (250 + 500) / 2 against 500
    (row,) = json.loads(render_pairs(records, "sparse-gpt", "json"))
    assert (row["model"], row["algorithm"], row["against_algorithm"]) == ("resnet50", "magnitude-pruner", "sparse-gpt")
    assert render_pairs(records, "sparse-gpt", "csv").splitlines()[0].startswith("suite,data,model,")
    assert "against its dense network" in render_pairs(records, "dense")
