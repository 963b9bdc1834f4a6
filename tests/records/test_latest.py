"""Which state of a row is the newest: a data set is known by its folder, not by how that is spelled."""

import pytest

from coreml_prune_bench.records.accuracy import GIVEN
from coreml_prune_bench.records.latest import left_out, newest_trials
from coreml_prune_bench.report.accuracy_tables import render, rows
from tests.factories import accuracy_record


def measured(day: int, *, spec: str, place: str | None, images: str = "old", model: str = "resnet50", host: str = "h"):
    """A dense network's record; `images` stands for the content of the folder."""
    record = accuracy_record([True] * 4, model=model, algorithm="dense", created=f"2026-01-{day:02}")
    return record.model_copy(
        update={
            "key": f"{day}",
            "subject_key": f"{model} {images}",
            "data": record.data.model_copy(update={"spec": spec, "place": place, "fingerprint": images}),
            "provenance": record.provenance.model_copy(update={"host": host}),
        }
    )


A = {"spec": "imagefolder:data", "place": "p"}
B = {"spec": "imagefolder:./data/", "place": "p"}


@pytest.mark.parametrize(
    ("records", "left"),
    [
        ([measured(1, **A), measured(2, **B, images="new")], ["2"]),  # one folder, whose images have changed
        ([measured(1, **B), measured(2, **A), measured(3, **B, images="new")], ["3"]),
        # of before 0.2, or of no folder: the spelling tells
        ([measured(1, spec=A["spec"], place=None), measured(2, **A, images="new")], ["2"]),
        ([measured(1, spec=A["spec"], place=None), measured(2, **A), measured(3, **B, images="new")], ["3"]),
        ([measured(1, spec="hf:a/b", place=None), measured(2, spec="hf:a/b", place=None, images="new")], ["2"]),
        # one spelling of two folders of one machine is two data sets, and of two machines one
        ([measured(1, **A), measured(2, spec=A["spec"], place="q", images="new")], ["1", "2"]),
        ([measured(1, **A), measured(2, spec=A["spec"], place="q", images="new", host="mac")], ["2"]),
        ([measured(1, **A), measured(2, spec="imagefolder:other", place="q", images="new")], ["1", "2"]),
    ],
)
def test_the_newest_images_of_a_folder_are_those_that_count(records, left):
    assert sorted(trials[0].key for trials in newest_trials(records)) == left


def given(day: int, config: str, *, subject: str = "center", algorithm: str = "dense"):
    """A record of a package that nobody built here; `subject` stands for how its images were prepared, and which."""
    record = accuracy_record([True] * 4, model="net", algorithm=algorithm, created=f"2026-01-{day:02}")
    return record.model_copy(
        update={
            "key": f"{day}",
            "config_key": f"{day}",
            "subject_key": subject,
            "network": record.network.model_copy(update={"weights": GIVEN}),
            "pruning": record.pruning.model_copy(update={"config": config}),
        }
    )


@pytest.mark.parametrize(
    ("records", "left"),
    [
        ([given(1, "a"), given(2, "b", subject="scaleFill"), given(3, "c", subject="new images")], ["1", "2", "3"]),
        # Measured again under its name: however its images were prepared, and whatever it is by now.
        ([given(1, "a"), given(2, "b"), given(3, "a", subject="scaleFill")], ["2", "3"]),
        ([given(1, "a"), given(2, "b"), given(3, "a", algorithm="given")], ["2", "3"]),
    ],
)
def test_only_a_package_of_its_name_replaces_one_that_nobody_built_here(records, left):
    assert sorted(trials[0].key for trials in newest_trials(records)) == left
    assert left_out(records) == []


def test_rows_of_older_weights_that_nobody_measured_again_are_told():
    def rows_of(weights: str, day: int, *algorithms: str):
        records = [accuracy_record([True], algorithm=one, created=f"2026-01-{day:02}") for one in algorithms]
        return [record.model_copy(update={"subject_key": weights}) for record in records]

    old = rows_of("old", 1, "dense", "sparse-gpt", "post")
    assert left_out(old) == []
    assert left_out([*old, *rows_of("new", 2, "dense", "sparse-gpt", "post")]) == []
    (line,) = left_out([*old, *rows_of("new", 2, "dense", "sparse-gpt")])
    assert line.startswith("suite s: a row of resnet50 is left out, for newer rows are of other weights, images or")
    assert "preprocessing: post, Unstructured Sparsity 50% on imagefolder:x; `run` measures again" in line
    (line,) = left_out([*old, *rows_of("new", 2, "dense")])
    assert "2 rows of resnet50 are left out" in line


def test_a_table_names_one_folder_once():
    both = [measured(1, **A), measured(2, **B, model="mobilenet_v2")]
    assert {row["data"] for row in rows(both)} == {B["spec"]}
    text = render(both)
    assert f"on {B['spec']}, mean" in text
    assert "| Data " not in text


def in_row(row: int | None, day: int, algorithm: str, suite: str = "s"):
    record = accuracy_record([True] * 4, algorithm=algorithm, created=f"2026-01-{day:02}")
    return record.model_copy(update={"row": row, "suite": suite})


@pytest.mark.parametrize(
    ("records", "order"),
    [
        # The second was measured again, last.
        ([in_row(0, 1, "dense"), in_row(1, 9, "post"), in_row(2, 3, "gpt")], ["dense", "post", "gpt"]),
        # As they came: of before 0.2, and of two runs of which each knew of one network.
        ([in_row(None, 2, "dense"), in_row(None, 1, "post")], ["post", "dense"]),
        ([in_row(0, 1, "dense"), in_row(None, 9, "post"), in_row(1, 3, "gpt")], ["dense", "gpt", "post"]),
        ([in_row(0, 2, "dense"), in_row(0, 1, "post")], ["post", "dense"]),
        # Suites stand among each other as they came.
        (
            [in_row(1, 1, "b", "x"), in_row(1, 2, "d", "y"), in_row(0, 3, "a", "x"), in_row(0, 4, "c", "y")],
            ["a", "c", "b", "d"],
        ),
    ],
)
def test_rows_stand_in_the_order_of_their_suite(records, order):
    assert [trials[0].pruning.algorithm for trials in newest_trials(records)] == order
