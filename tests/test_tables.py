"""Tables: numbers worked out by hand, the newest state of each cell, and no torch."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from harness.errors import BenchError
from harness.records import Record, read_records
from harness.tables import render, rows


def record(
    *,
    correct: int = 3,
    algorithm: str = "magnitude-pruner",
    trial: int = 0,
    weight_bytes: int = 500,
    created: str = "2026-01-01",
    **changes: object,
) -> Record:
    """Four images of class 7, `correct` of which are predicted right; the others have the label in second place."""
    dense = algorithm == "dense"
    content = {
        "status": "measured",
        "key": f"{algorithm}{trial}{created}",
        "config_key": f"{algorithm}{created}",
        "subject_key": "subject",
        "suite": "s",
        "trial": trial,
        "network": {"name": "resnet50", "title": "ResNet50", "weights": "w", "trained": False},
        "pruning": {
            "algorithm": algorithm,
            "title": "n/a" if dense else "MagnitudePruner",
            "config": "Float16" if dense else "Unstructured Sparsity 50%",
            "sparsity": 0.0 if dense else 0.5,
            "scope": "none" if dense else "conv + linear",
            "settings": {},
        },
        "data": {
            "spec": "imagefolder:x", "split": "val", "fingerprint": "f", "train_fingerprint": None, "classes": 1000,
            "image_size": 224, "skipped": [],
        },
        "provenance": {
            "created": created, "host": "h", "os": "o", "machine": "m", "cpu_count": 2, "python": "3", "packages": {},
            "git_commit": None, "build_seconds": 1.0, "evaluate_seconds": 1.0,
        },
        "package": {
            "sha256": "0", "weight_bytes": weight_bytes, "package_bytes": weight_bytes + 50,
            "whole_model_sparsity": 0.0 if dense else 0.5, "deployment_target": "iOS17", "operations": {}, "layers": [],
        },
        "runtime": {"name": "portable", "version": "v", "precision": "float32", "compute_units": "cpu"},
        "predictions": {
            "labels": [7] * 4,
            "top5": [[7, 1, 2, 3, 4]] * correct + [[1, 7, 2, 3, 4]] * (4 - correct),
        },
    }  # fmt: skip
    return Record.model_validate(content | changes)


def dense(**changes: object) -> Record:
    return record(algorithm="dense", correct=4, weight_bytes=1000, **changes)


def test_mean_sample_deviation_and_ratio_worked_out_by_hand():
    # 25, 50 and 75 %: mean 50; deviations -25, 0, 25; sample variance (625 + 0 + 625) / 2 = 625
    trials = [record(correct=correct, trial=trial) for trial, correct in enumerate((1, 2, 3))]
    baseline, pruned = rows([dense(), *trials])
    assert (baseline["top1_mean"], baseline["top1_std"], baseline["compression_ratio"]) == (100, None, 1)
    assert (pruned["top1_mean"], pruned["top1_std"]) == (50, 25)
    assert pruned["compression_ratio"] == 2
    assert pruned["top5_mean"] == 100
    assert (pruned["trials"], pruned["images"], pruned["runtime"]) == (3, 4, "portable")


def test_json_rows_have_the_stable_names():
    (_, row) = json.loads(render([dense(), record()], format="json"))
    promised = (
        "model config algorithm sparsity compression_ratio top1_mean top1_std trials images runtime "
        "scope whole_model_sparsity"
    )
    assert set(promised.split()) <= row.keys()
    assert (row["model"], row["algorithm"], row["sparsity"]) == ("resnet50", "magnitude-pruner", 0.5)


def test_the_readable_table_has_the_published_columns_first():
    text = render([dense(), record(correct=1), record(correct=3, trial=1)])
    header = next(line for line in text.splitlines() if line.startswith("|"))
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert columns[:5] == ["Model Name", "Config", "Optimization Algorithm", "Compression Ratio", "Accuracy"]
    assert columns[5:] == ["Pruned Scope", "Whole-Model Sparsity", "Images", "Runtime"]
    assert "| 50.00 ± 35.36 |" in text  # 25 and 75: sqrt(2 * 625 / 1)
    assert "not Core ML's" in text


def test_the_published_ratio_stands_beside_ours():
    text = render([dense(), record(weight_bytes=571)], "size")
    assert "| 1.751 " in text  # 1000 / 571
    assert "| 1.77 " in text
    assert "| -0.019 " in text


def test_no_published_ratio_for_a_network_with_another_head():
    data = record().data.model_copy(update={"classes": 10})
    assert rows([record(data=data.model_dump())])[0]["published_compression_ratio"] is None


def test_csv_and_json_hold_the_same_rows():
    records = [dense(), record()]
    frame = pd.read_csv(StringIO(render(records, format="csv")))
    assert frame["top1_mean"].tolist() == [row["top1_mean"] for row in json.loads(render(records, format="json"))]


def test_latex_is_a_booktabs_table():
    text = render([dense()], format="latex")
    assert "\\toprule" in text
    assert text.startswith("% Suite s")


def test_the_newest_version_of_a_config_counts_with_its_own_trials_alone():
    old = [record(correct=0, trial=trial, created="2026-01-01") for trial in range(3)]
    new = [record(correct=4, trial=0, created="2026-01-02")]
    (row,) = rows(new + old)
    assert (row["top1_mean"], row["trials"]) == (100, 1)


def test_records_of_other_weights_do_not_stand_beside_newer_ones():
    old = dense(created="2026-01-01", subject_key="old weights")
    (row,) = rows([record(created="2026-01-02"), old])
    assert row["algorithm"] == "magnitude-pruner"
    assert row["compression_ratio"] is None  # its baseline was not measured


def test_a_failed_trial_is_told_and_not_averaged():
    failed = record(trial=1, status="failed", reason="r", package=None, predictions=None, runtime=None)
    text = render([dense(), record(correct=3), failed])
    assert "75.00 (1 failed)" in text
    assert rows([failed])[0]["top1_mean"] is None
    assert "| failed " in render([failed])


def test_two_data_sets_of_one_suite_are_told_apart():
    data = record().data.model_copy(update={"spec": "imagefolder:turned"}).model_dump()
    text = render([dense(), record(data=data, subject_key="turned")])
    assert "| Data " in text
    assert "| imagefolder:turned |" in text


def test_a_record_survives_writing_and_reading(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.json").write_text(record().to_json())
    assert read_records(tmp_path) == [record()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (record().to_json()[:300], "is not a record of schema 1"),
        (record().to_json().replace('"schema_version": 1', '"schema_version": 2'), "schema_version"),
        ("{}", "Field required"),
    ],
)
def test_half_a_record_or_one_of_another_schema_is_named(tmp_path, text, message):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "bad.json").write_text(text)
    with pytest.raises(BenchError, match=message) as raised:
        read_records(tmp_path)
    assert "bad.json" in str(raised.value)


def test_an_empty_results_folder_says_what_was_expected(tmp_path):
    with pytest.raises(BenchError, match="no records in"):
        read_records(tmp_path)


def test_tables_import_neither_torch_nor_coremltools(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.json").write_text(record().to_json())
    code = (
        "import sys; sys.argv = ['run_bench', 'table', '--results', sys.argv[1]]\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'coremltools', 'onnxruntime'} & set(sys.modules)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ResNet50" in done.stdout
