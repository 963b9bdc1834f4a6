"""Which state of a row is the newest: a data set is known by its folder, not by how that is spelled."""

import pytest

from coreml_prune_bench.records.latest import newest_trials
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


def test_a_table_names_one_folder_once():
    both = [measured(1, **A), measured(2, **B, model="mobilenet_v2")]
    assert {row["data"] for row in rows(both)} == {B["spec"]}
    text = render(both)
    assert f"on {B['spec']}, mean" in text
    assert "| Data " not in text
