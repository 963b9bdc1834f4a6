"""How long a gate takes, as its user waits: a new process, 27 rows of 50,000 images."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coreml_prune_bench.gating.baseline import read_results, write_baseline
from tests.factories import accuracy_record

ROOT = Path(__file__).parents[2]
_ROWS = 27
_IMAGES = 50_000


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A baseline file, and two results folders whose predictions differ in 5 % of the images."""
    folder = tmp_path_factory.mktemp("gate")
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 1000, _IMAGES)
    for row in range(_ROWS):
        right = draw.random(_IMAGES) < 0.75
        for side in ("old", "new"):
            top5 = draw.integers(0, 1000, (_IMAGES, 5))
            hit = right ^ (draw.random(_IMAGES) < 0.025)
            top5[hit, 0] = labels[hit]
            predictions = {"labels": labels.tolist(), "top5": top5.tolist()}
            record = accuracy_record([True], model=f"model{row}", sha256=f"{side}{row}", predictions=predictions)
            path = folder / side / "records" / f"{row}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(record.to_json())
    write_baseline(folder / "baseline.json", read_results(folder / "old"))
    return folder / "baseline.json", folder / "old", folder / "new"


@pytest.mark.parametrize("baseline", ["file", "folder"])
def test_a_gate_of_27_rows_of_50_000_images(benchmark, folders, baseline):
    file, old, new = folders
    arguments = ("--baseline", str(file if baseline == "file" else old), "--results", str(new))
    command = [sys.executable, "run_bench.py", "gate", *arguments]

    def run() -> str:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout

    output = benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    assert "27 tests at 5 %" in output
