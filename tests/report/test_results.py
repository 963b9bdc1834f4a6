"""Records as data frames: every level against values by hand, and the committed results against their table."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.report.accuracy_tables import render
from coreml_prune_bench.report.results import Results, load_records
from tests.report.test_accuracy_tables import COMMITTED, dense, record

FAILED = record(trial=2, status="failed", reason="r", package=None, predictions=None, runtime=None)
OLD = record(correct=0, trial=3, created="2025-01-01")


@pytest.fixture
def results() -> Results:
    return Results((dense(), record(correct=1), record(correct=3, trial=1), FAILED, OLD))


def test_a_folder_s_records_and_their_newest_state(results: Results, tmp_path: Path):
    (tmp_path / "records").mkdir()
    for number, one in enumerate(results):
        (tmp_path / "records" / f"{number}.json").write_text(one.to_json())
    loaded = load_records(str(tmp_path))
    assert loaded == results
    assert (len(loaded), len(loaded.records), list(loaded)[3]) == (5, 5, FAILED)
    assert list(loaded.latest()) == [dense(), record(correct=1), record(correct=3, trial=1), FAILED]
    with pytest.raises(BenchError, match="no records in"):
        load_records(tmp_path / "records")


def test_a_row_a_table_row(results: Results):
    frame = results.to_frame()
    assert frame["algorithm"].tolist() == ["dense", "magnitude-pruner"]
    pruned = frame.iloc[1]
    # 25 and 75 %: mean 50, sample deviation sqrt(2 * 25^2); 1000 bytes over 500.
    assert (pruned["top1_mean"], pruned["compression_ratio"]) == (50, 2)
    assert pruned["top1_std"] == pytest.approx(np.sqrt(2 * 25**2))
    assert (pruned["trials"], pruned["failed_trials"]) == (2, 1)
    assert np.isnan(frame.iloc[0]["top1_std"])  # one trial


def test_the_columns_are_those_of_the_json_table():
    results = load_records(COMMITTED)
    rows = json.loads(render(results.records, format="json"))
    frame = results.to_frame()
    assert list(frame) == list(rows[0])
    assert frame["top1_mean"].tolist() == [row["top1_mean"] for row in rows]


def test_a_row_a_trial_with_the_failed_ones(results: Results):
    frame = results.to_frame("trial")
    assert frame["trial"].tolist() == [0, 0, 1, 2, 3]
    assert frame["status"].tolist() == ["measured"] * 3 + ["failed", "measured"]
    assert frame["top1"].dropna().tolist() == [100, 25, 75, 0]
    assert frame["top5"].dropna().tolist() == [100] * 4
    assert frame["weight_bytes"].dropna().tolist() == [1000, 500, 500, 500]
    assert frame["images"].tolist() == [4, 4, 4, 0, 4]
    assert frame["reason"].dropna().tolist() == ["r"]


def test_a_row_an_image(results: Results):
    frame = results.latest().to_frame("image")
    names = "suite data model algorithm config trial image label predicted correct"
    assert list(frame) == names.split()
    assert len(frame) == 3 * 4  # the failed one has none
    first_trial = frame[(frame["algorithm"] == "magnitude-pruner") & (frame["trial"] == 0)]
    assert first_trial["image"].tolist() == [0, 1, 2, 3]
    assert first_trial["label"].tolist() == [7, 7, 7, 7]
    assert first_trial["predicted"].tolist() == [7, 1, 1, 1]
    assert first_trial["correct"].tolist() == [True, False, False, False]
    by_trial = frame.groupby(["algorithm", "trial"], observed=True)["correct"].mean()
    assert by_trial.tolist() == [1, 0.25, 0.75]
    assert isinstance(frame["config"].dtype, pd.CategoricalDtype)


@pytest.mark.parametrize("level", ["row", "trial", "image"])
def test_nothing_measured_is_a_frame_of_the_same_columns_without_rows(results: Results, level):
    none = Results(()).to_frame(level)
    assert (len(none), list(none)) == (0, list(results.to_frame(level)))


def test_another_level_is_named(results: Results):
    with pytest.raises(BenchError, match="level 'layer': expected 'row', 'trial' or 'image'"):
        results.to_frame("layer")  # type: ignore[arg-type]


def test_pandas_is_imported_for_a_frame_alone():
    code = (
        "import sys\n"
        "from coreml_prune_bench.report.results import load_records\n"
        f"results = load_records({str(COMMITTED)!r}).latest()\n"
        "assert not {'pandas', 'torch', 'coremltools'} & set(sys.modules)\n"
        "results.to_frame()\n"
        "assert 'pandas' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
