"""A record that is damaged, copied or changed by hand: named in a line, counted once, and never a traceback."""

import os
import random
import shutil

import numpy as np
import pytest

from coreml_prune_bench.core.errors import BenchError, DamagedFileError
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.gating.baseline import load_baseline, read_results
from coreml_prune_bench.gating.folder import gate_folder
from coreml_prune_bench.records.accuracy import read_record, read_records
from coreml_prune_bench.records.folder import set_aside
from coreml_prune_bench.records.hits import read_scored
from coreml_prune_bench.records.latency import read_latency_records, write_latency_record
from coreml_prune_bench.records.latest import newest_trials
from coreml_prune_bench.records.predictions import Predictions
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.report.accuracy_tables import render
from tests.factories import (
    accuracy_record,
    failed_record,
    four_images,
    four_images_dense,
    latency_record,
    noisy_rounds,
    write_records,
)
from tests.records.tampering import tampered, tell_everything


def empty(path):
    path.write_bytes(b"")


def half(path):
    path.write_bytes(path.read_bytes()[:300])


def folder(path):
    path.unlink()
    path.mkdir()


def link_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def not_text(path):
    path.write_bytes(b"\xff\xfe" * 50)


def nested(path):
    path.write_text("[" * 100_000)


DAMAGES = [empty, half, folder, link_loop, pipe, not_text, nested]


@pytest.fixture
def results(tmp_path):
    """The dense network, and one config in two trials."""
    trials = [four_images(trial=0, correct=3), four_images(trial=1, correct=1)]
    return write_records(tmp_path / "results", four_images_dense(), *trials)


def the_file(results, record):
    return results / "records" / f"{record.key}.json"


@pytest.mark.parametrize("damage", DAMAGES)
def test_tables_name_a_damaged_record_and_say_what_the_others_do(results, run_bench, damage):
    path = the_file(results, four_images(trial=1))
    damage(path)
    expected = render([four_images_dense(), four_images(trial=0, correct=3)])
    code, output, errors = run_bench("table", "--results", results)
    assert (code, output.strip()) == (0, expected.strip())
    (line,) = errors.splitlines()
    assert line.startswith(f"warning: {path} is not a record")
    assert line.endswith("; left out, `run` measures it again")
    code, _, errors = run_bench("report", results / "page.html", "--results", results)
    assert (code, len(errors.splitlines())) == (0, 1)
    assert (results / "page.html").is_file()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_of_nothing_but_damage_is_one_line(tmp_path, refused, damage):
    record = four_images()
    path = the_file(write_records(tmp_path, record), record)
    damage(path)
    with pytest.raises(BenchError, match="has no record that can be read") as raised:
        read_records(tmp_path, lambda line: None)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_record_of_a_later_version_is_not_damaged_and_stays(results):
    path = the_file(results, four_images(trial=1))
    path.write_text(path.read_text().replace('"schema_version": 4', '"schema_version": 5'))
    with pytest.raises(BenchError, match="of schema 5, which this version cannot read") as raised:
        read_records(results)
    assert not isinstance(raised.value, DamagedFileError)
    with pytest.raises(BenchError, match="of schema 5"):
        Store(results).record_of(path.stem, lambda record: None, lambda line: None)
    assert path.is_file()


def test_what_other_programs_put_beside_records_is_none(results):
    (results / "records" / "._resnet50.json").write_bytes(b"\0\5\x16\7")
    assert len(read_records(results, pytest.fail)) == 3


# --- gates


def test_a_gate_misses_the_row_of_a_damaged_record(tmp_path, capsys):
    records = [four_images(), four_images_dense()]
    good, bad = write_records(tmp_path / "good", *records), write_records(tmp_path / "bad", *records)
    empty(the_file(bad, records[0]))
    report = gate_folder(bad, good)
    assert sorted(row.verdict for row in report.rows) == ["missing", "same"]
    assert report.exit_code == 1
    assert str(the_file(bad, records[0])) in capsys.readouterr().err


def test_a_baseline_must_not_lack_a_row_without_a_word(tmp_path):
    """The row would be new, and a gate passes what is new."""
    records = [four_images(), four_images_dense()]
    good, bad = write_records(tmp_path / "good", *records), write_records(tmp_path / "bad", *records)
    empty(the_file(bad, records[0]))
    for run, baseline, against_dense in ((good, bad, False), (bad, good, True)):
        with pytest.raises(BenchError, match="its row must not be left out here"):
            gate_folder(run, baseline, against_dense=against_dense)
    assert len(load_baseline(str(bad)).accuracy) == 1  # to be shown


def test_a_gate_takes_no_older_state_for_a_damaged_one(tmp_path):
    old, new = four_images(created="2026-01-01"), four_images(created="2026-01-02")
    (tmp_path / "records").mkdir()
    for record, key in ((old, "a" * 12), (new, "b" * 12)):
        path = tmp_path / "records" / f"resnet50--magnitude--u--trial1--{key}.json"
        path.write_text(record.to_json())
    empty(path)
    with pytest.raises(BenchError, match=f"trial1--{'a' * 12}.json may be an older state of its row"):
        read_results(tmp_path)


def test_a_gate_reads_a_measured_record_without_checking_each_number(tmp_path, monkeypatch):
    record = four_images()
    path = the_file(write_records(tmp_path, record), record)
    monkeypatch.setattr("coreml_prune_bench.records.hits.read_record", None)
    assert read_scored(path)[1].tolist() == [True, True, True, False]


@pytest.mark.parametrize("number", ["9" * 10, "9" * 400], ids=len)
def test_numbers_that_are_no_classes_are_told_by_either_way_of_reading(tmp_path, number):
    path = tmp_path / "record.json"
    path.write_text(four_images().to_json().replace("[[7,", f"[[{number},", 1))
    for read in (read_record, read_scored):
        with pytest.raises(DamagedFileError, match=r"predictions\.top5\.0\.0 Input should be less than"):
            read(path)


# --- copies


def test_a_copied_record_counts_once(results, capsys):
    """Two trials of one measurement would have no spread: "± 0.00" of a result that nobody measured twice."""
    records = [four_images_dense(), four_images(trial=0, correct=3)]
    expected = render(records)
    the_file(results, four_images(trial=1)).unlink()
    path = the_file(results, records[1])
    for name in ("another", "zz-copy"):
        shutil.copy(path, path.with_name(f"{name}.json"))
    assert render(read_records(results)) == expected
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("holds the record that" in line and "counts once" in line for line in lines)
    assert len(read_results(results).accuracy[0].trials) == 1


def test_a_copy_changes_no_order_of_rows(results):
    """Tables list rows in the order of the files, and a copy may come before all of them."""
    expected = [record.key for record in read_records(results, lambda line: None)]
    path = the_file(results, four_images(trial=0, correct=3))
    shutil.copy(path, path.with_name(f"copy of {path.name}"))
    assert [record.key for record in read_records(results, lambda line: None)] == expected


def test_of_copies_the_one_under_its_own_name_counts(tmp_path):
    record = four_images(key="c" * 12)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_text(four_images(key="c" * 12, correct=4, created="2027").to_json())
    (tmp_path / "records" / f"b--{'c' * 12}.json").write_text(record.to_json())
    assert read_records(tmp_path, lambda line: None) == [record]


def test_one_trial_under_two_keys_is_one_trial():
    first, second = four_images(correct=3), four_images(correct=1, key="changed by hand")
    ((only,),) = newest_trials([first, second])
    assert only.key == second.key
    ((only,),) = newest_trials([first, failed_record(**_as(first))])
    assert only.status == "measured"


def _as(record):
    return {"config_key": record.config_key, "subject_key": record.subject_key, "pruning": record.pruning.model_dump()}


def test_trials_of_different_images_are_no_row(tmp_path):
    records = [accuracy_record([True] * count, trial=count) for count in (3, 4)]
    with pytest.raises(BenchError, match="predictions of 4 images, another one of 3, though both skipped the same"):
        newest_trials(records)
    with pytest.raises(BenchError, match="of different numbers of images"):
        read_results(write_records(tmp_path, *records))


# --- setting aside


def test_what_is_set_aside_is_kept_under_another_name(tmp_path):
    for _ in range(3):
        (tmp_path / "a.json").write_text("")
        set_aside(tmp_path / "a.json")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.json.damaged", "a.json.damaged-2", "a.json.damaged-3"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_set_aside_and_written_again(tmp_path, damage):
    store, said = Store(tmp_path), []
    record = store.write_record("name", four_images())
    assert store.record_of("name", lambda one: None, said.append) == record
    assert said == []
    damage(tmp_path / "records" / "name.json")
    assert store.record_of("name", lambda one: None, said.append) is None
    (line,) = said
    assert "name.json is not a record" in line
    assert line.endswith("; set aside as name.json.damaged, to be measured again")
    assert os.path.lexists(tmp_path / "records" / "name.json.damaged")
    assert store.write_record("name", record) == store.record("name") == record


def test_an_artifact_under_the_name_of_another_is_made_again(tmp_path):
    store = Store(tmp_path)
    first = store.artifact("a" * 64, lambda empty: {"number": 1})
    shutil.copytree(first, first.with_name("b" * 16))
    assert store.manifest(store.artifact("b" * 64, lambda empty: {"number": 2})) == {"number": 2}


def test_a_file_has_its_name_once_it_is_on_the_disk(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("name"), replace(*names)))
    write_atomically(tmp_path / "file", "content")
    assert done == ["sync", "name", "sync"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_latency_record_is_left_out_and_measured_again(tmp_path, damage):
    records = [latency_record(noisy_rounds(1e6), algorithm=name, key=name * 8) for name in ("dense", "sparse-gpt")]
    for record in records:
        path = write_latency_record(tmp_path, record)
    damage(path)
    said = []
    assert read_latency_records(tmp_path, said.append) == records[:1]
    assert str(path) in said[0]
    assert write_latency_record(tmp_path, records[1]) == path
    assert read_latency_records(tmp_path, pytest.fail) == records


# --- changed by hand


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictions": None}, "measured, but without predictions"),
        ({"runtime": None, "package": None}, "measured, but without package and runtime"),
        ({"status": "failed"}, "failed, but with predictions"),
        ({"predictions": {"labels": [], "top5": []}}, "predictions.labels Tuple should have at least 1 item"),
        ({"predictions": {"labels": [7, 7], "top5": [[7]]}}, "2 labels, but the classes of 1 images"),
        ({"predictions": {"labels": [7], "top5": [[]]}}, "predictions.top5.0 Tuple should have at least 1 item"),
        ({"predictions": {"labels": [-1], "top5": [[7]]}}, "predictions.labels.0 Input should be greater than"),
        ({"trial": -1}, "trial Input should be greater than"),
    ],
)
def test_what_no_run_writes_is_refused_by_the_schema(tmp_path, changes, message):
    path = tmp_path / "record.json"
    path.write_text(four_images().model_copy(update=changes).model_dump_json(warnings=False))
    for read in (read_record, read_scored):
        with pytest.raises(DamagedFileError) as raised:
            read(path)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)


def test_predictions_without_an_image_cannot_be_made():
    with pytest.raises(ValueError, match="at least 1 item"):
        Predictions(labels=(), top5=())


def test_no_record_that_was_changed_by_hand_is_a_traceback(tmp_path):
    """One value of a record, anywhere, replaced by a wrong one; the other records of the folder are as they were."""
    draw = random.Random(0)
    right = np.arange(4) < 3
    record = accuracy_record(
        right, package=_package(), pruning=_pruning(), code={"a": "b"}, data={"skipped": ["a.jpg"]}
    )
    latency = latency_record([[5, 6, 7], [6, 7, 8]], planned={"cpu": 3})
    others = [accuracy_record(right, algorithm="dense", data={"skipped": ["a.jpg"]})]
    good = write_records(tmp_path / "good", record, *others)
    results = write_records(tmp_path / "results", *others)
    write_latency_record(good, latency)
    write_latency_record(results, latency_record([[5, 6, 7]], algorithm="dense"))
    for one, where in ((record, results / "records" / "x.json"), (latency, results / "latency" / "x.json")):
        texts = list(tampered(one))
        assert len(texts) > 1000
        for number, text in enumerate(draw.sample(texts, 30)):
            where.write_text(text)
            assert not any("\n" in line for line in tell_everything(results, good, draw=number % 10 == 0))
        where.unlink()


def _package():
    layers = [{"name": "a", "target": 0.5, "sparsity": 0.5, "storage": "sparse"}]
    return {
        "sha256": "s", "weight_bytes": 500, "package_bytes": 550, "whole_model_sparsity": 0.5,
        "deployment_target": "iOS17", "operations": {"conv": 3}, "layers": layers,
    }  # fmt: skip


def _pruning():
    settings = {"sparsity": 0.5, "allocation": "sensitivity", "layers": [["a", 0.5]]}
    return {
        "algorithm": "sparse-gpt", "title": "t", "config": "c 50%", "sparsity": None, "scope": "s", "settings": settings
    }  # fmt: skip
