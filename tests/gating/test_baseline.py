"""Baselines: what they keep, where they are read from, and what is refused."""

import subprocess

import numpy as np
import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.gating.baseline import from_records, load_baseline, read_baseline, read_results, write_baseline
from coreml_prune_bench.gating.baseline_tables import differences, overview
from coreml_prune_bench.records.hits import read_scored
from tests.factories import accuracy_record, failed_record, latency_record, noisy_rounds, write_records
from tests.gating.samples import bits


@pytest.fixture
def baseline_file(tmp_path):
    path = tmp_path / "baseline.json"
    records = [accuracy_record(bits()[0]), accuracy_record(bits()[0], algorithm="dense")]
    write_baseline(path, from_records(records, [latency_record(noisy_rounds(2e6))]))
    return path


def test_every_prediction_survives_as_a_bit():
    draw = np.random.default_rng(0)
    for images in (1, 7, 8, 9, 1000):
        correct = draw.random((3, images)) < 0.7
        records = [accuracy_record(one, trial=trial) for trial, one in enumerate(correct)]
        (row,) = from_records(records).accuracy
        assert (row.correct == correct).all()
        assert row.top1 == pytest.approx(np.mean([record.predictions.top1 for record in records]))


@pytest.mark.parametrize("images", [1, 2, 700])
def test_reading_quickly_is_reading(tmp_path, images):
    """Both ways to read a record, on labels and classes of one to four digits."""
    draw = np.random.default_rng(images)
    labels, top5 = draw.integers(0, 1200, images), draw.integers(0, 1200, (images, 5))
    top5[::2, 0] = labels[::2]
    record = accuracy_record([True], predictions={"labels": labels.tolist(), "top5": top5.tolist()})
    path = tmp_path / "record.json"
    path.write_text(record.to_json())
    for text in (record.to_json(), record.model_dump_json(), record.to_json().replace('"labels":[', '"labels": [')):
        path.write_text(text)
        read, right = read_scored(path)
        assert read == record.model_copy(update={"predictions": None})
        assert (right == (labels == top5[:, 0])).all()


def test_what_cannot_be_read_quickly_is_told_as_ever(tmp_path):
    text = accuracy_record([True, False, True]).to_json()
    path = tmp_path / "record.json"
    changes = {
        '"labels":[7,7,7]': ('"labels":[7,7,NaN]', "finite number"),
        '"labels":[7,7,7],': ('"labels":[7,,7],', "Invalid JSON"),
        "],[1,7": ("],[[1,7", "Invalid JSON"),
        '"suite": "s"': ('"suite": 3', "suite Input should be a valid string"),
        '"top5"': ('"top6"', "predictions.top5 Field required"),
    }
    for old, (new, message) in changes.items():
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(BenchError, match=message):
            read_scored(path)
    path.write_text(failed_record().to_json())
    assert read_scored(path)[1] is None


def test_a_file_holds_what_the_records_do(baseline_file, tmp_path):
    read = read_baseline(baseline_file)
    records = [accuracy_record(bits()[0]), accuracy_record(bits()[0], algorithm="dense")]
    made = from_records(records, [latency_record(noisy_rounds(2e6))])
    saved = type(made).model_validate_json(made.to_json()).accuracy  # without what is not saved
    assert {row.algorithm: row for row in read.accuracy} == {row.algorithm: row for row in saved}
    assert [row.trials[0].package_bytes for row in (*made.accuracy, *saved)] == [550, 550, None, None]
    assert read.latency == made.latency
    assert read.measured == made.measured == "2026-01-01"


def test_a_file_is_small_and_has_a_line_a_row(baseline_file):
    lines = baseline_file.read_text().splitlines()
    assert sum('"model":' in line for line in lines) == 3
    draw = np.random.default_rng(0)
    rows = [accuracy_record(draw.random(50_000) < 0.75, model=f"m{number}") for number in range(2)]
    write_baseline(baseline_file, from_records(rows))
    assert baseline_file.stat().st_size < 2 * 9_500  # 50,000 bits are 8,336 characters of base64


def test_saving_again_what_did_not_change_gives_the_same_file(tmp_path):
    records = [accuracy_record(bits()[0], model=name) for name in "bca"]
    write_baseline(tmp_path / "one.json", from_records(records))
    write_baseline(tmp_path / "two.json", from_records(records[::-1]))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_only_the_newest_state_of_a_row_counts():
    old = [accuracy_record(bits()[0], trial=trial) for trial in range(3)]
    new = accuracy_record(bits(lost=5)[1], created="2026-01-02")
    (row,) = from_records([new, *old]).accuracy
    assert (len(row.trials), row.correct.sum()) == (1, 795)
    older, newer = latency_record(noisy_rounds(2e6)), latency_record(noisy_rounds(3e6), created="2026-01-02")
    (row,) = from_records([], [newer, older]).latency
    assert row.rounds[0].model_median_ns > 2.5e6


def test_trials_that_skipped_different_images_are_refused():
    records = [accuracy_record([True], data={"skipped": skipped}, trial=len(skipped)) for skipped in ([], ["a.jpg"])]
    with pytest.raises(BenchError, match="its trials skipped different images"):
        from_records(records)


def test_failed_cells_are_told_and_not_saved(tmp_path):
    made = from_records([failed_record(), accuracy_record([True], algorithm="dense")])
    assert [row.algorithm for row in made.accuracy] == ["dense"]
    assert [failure.reason for failure in made.failures] == ["layer x is dense"]
    write_baseline(tmp_path / "b.json", made)
    assert "layer x" not in (tmp_path / "b.json").read_text()


def test_latency_rounds_are_their_medians_and_a_sample(baseline_file):
    rounds = noisy_rounds(2e6, rounds=12, samples=101)
    (row,) = from_records([], [latency_record(rounds)]).latency
    assert [one.model_median_ns for one in row.rounds] == [float(np.median(one)) for one in rounds]
    assert row.rounds[0].call_median_ns == row.rounds[0].model_median_ns + 1000
    assert row.rounds[0].predictions == 101
    assert len(row.sample) == 200
    assert (row.sample[0], row.sample[-1]) == (rounds[0][0], rounds[-1][-1])


# --- where it is read from


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@e"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_from_a_git_revision(tmp_path, monkeypatch):
    git(tmp_path, "init", "--initial-branch=main")
    (tmp_path / "results").mkdir()
    for revision, right in (("old", 10), ("new", 20)):
        made = from_records([accuracy_record(np.arange(40) < right)])
        write_baseline(tmp_path / "results" / "baseline.json", made)
        write_baseline(tmp_path / "other.json", from_records([accuracy_record([True])]))
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "--message", revision)
        git(tmp_path, "tag", revision)
    monkeypatch.chdir(tmp_path)
    assert [load_baseline(name).accuracy[0].top1 for name in ("old", "new", "old:other.json")] == [0.25, 0.5, 1]
    with pytest.raises(
        BenchError, match=r"no baseline 'old:nowhere\.json': it is neither a file nor a folder, and git"
    ):
        load_baseline("old:nowhere.json")
    with pytest.raises(BenchError, match="git says"):
        load_baseline("--output=x")
    assert not (tmp_path / "x").exists()


def test_from_a_results_folder(tmp_path):
    write_records(tmp_path, accuracy_record(bits()[0]))
    assert load_baseline(str(tmp_path)).accuracy[0].images.count == 1000


def test_a_row_of_older_weights_that_no_gate_holds_is_told(tmp_path, capsys):
    dense = accuracy_record(bits()[0], algorithm="dense", created="2026-01-02", subject_key="new weights")
    rows = read_results(write_records(tmp_path, accuracy_record(bits()[0]), dense)).accuracy
    assert [row.algorithm for row in rows] == ["dense"]
    assert "a row of resnet50 is left out, for newer rows are of other weights" in capsys.readouterr().err


# --- schemas, and what is refused


def test_a_newer_schema_is_refused_with_what_to_do(baseline_file):
    baseline_file.write_text(baseline_file.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(
        BenchError, match=r"schema 2, which this version cannot read: it knows schemas up to 1; use the"
    ):
        read_baseline(baseline_file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:400], "is not a baseline: "),
        (lambda text: "", "is not a baseline: "),
        (lambda text: "[]", "it has no schema_version"),
        (lambda text: '{"schema_version": 1}', "measured Field required"),
        (lambda text: text.replace('"suite"', '"sweet"'), "sweet Extra inputs are not permitted"),
        (lambda text: text.replace('"count":1000', '"count":1100'), "125 bytes of predictions for 1100 images"),
        (lambda text: text.replace('"correct":"', '"correct":"!'), "predictions are not base64"),
        (lambda text: text.replace('"call_median_ns":2', '"call_median_ns":NaN,"x":2'), "should be a finite number"),
        (lambda text: text.replace('"call_median_ns":2', '"call_median_ns":-2'), "should be greater than 0"),
    ],
)
def test_half_a_file_or_a_damaged_one_is_one_line(baseline_file, change, message):
    baseline_file.write_text(change(baseline_file.read_text()))
    with pytest.raises(BenchError, match=message) as raised:
        read_baseline(baseline_file)
    assert "baseline.json" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_samples_that_are_not_numbers_or_took_no_time(tmp_path):
    record = latency_record(noisy_rounds(2e6))
    (tmp_path / "latency").mkdir()
    path = tmp_path / "latency" / record.file_name
    path.write_text(record.to_json().replace('"model_ns":[', '"model_ns":[NaN,', 1))
    with pytest.raises(BenchError, match=r"rounds\.0\.model_ns.*finite number"):
        read_results(tmp_path)
    path.write_text(latency_record([[100, 0, 100]]).to_json())
    with pytest.raises(BenchError, match="one that took no time"):
        read_results(tmp_path)


def test_an_empty_results_folder(tmp_path):
    with pytest.raises(BenchError, match="no records in"):
        read_results(tmp_path)


# --- what is in them


def test_an_overview_has_a_line_a_row(baseline_file):
    rows = overview(read_baseline(baseline_file))
    assert [row["top1_percent"] for row in rows] == [80, 80, None]
    assert rows[2]["latency_ms"] == pytest.approx(2, rel=0.02)


def test_differences_name_every_value_that_changed():
    before, after = bits(lost=7, gained=2)
    old = from_records([accuracy_record(before), accuracy_record(before, algorithm="dense")])
    new = from_records([accuracy_record(after, weight_bytes=600, created="2026-01-02")])
    found = [(row["algorithm"], row["what"], row.get("first"), row.get("second")) for row in differences(old, new)]
    assert found == [
        ("sparse-gpt", "top1_percent", 80.0, 79.5),
        ("sparse-gpt", "weight_bytes", 500.0, 600.0),
        ("sparse-gpt", "images that only one gets right", None, 9),
        ("dense", "only in the first", None, None),
    ]
    assert differences(old, old) == []
