"""`torchrun --nproc-per-node 2 run_bench.py run`: the same results as one process, written by the first one alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from coreml_prune_bench.models.checkpoints import unpack
from coreml_prune_bench.records.accuracy import read_records

ROOT = Path(__file__).parents[2]

SUITE = """
description = "two trainings of twenty steps"
models = ["tiny"]
weights = "none"
trials = 1

[training]
epochs = 2
batch_size = 8
batchnorm_samples = 80

[[configs]]
algorithm = "post-training"
sparsity = 0.5

[[configs]]
algorithm = "magnitude-pruner"
sparsity = 0.75
distillation = { temperature = 2.0 }
training = { epochs = 2, batch_size = 8, learning_rate = 0.05, schedule = "cosine", warmup_share = 0.1 }
"""


@pytest.fixture
def arguments(tmp_path) -> list[object]:
    """Of `run`: the suite, and images of noise. In digits, where many pixels are equal, rounding errors grow fast."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 100)):
        for name in "abcd":
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(3, axis=0).repeat(3, axis=1)
                PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    path = tmp_path / "short.toml"
    path.write_text(SUITE)
    return ["run", "--suite", path, "--data", f"imagefolder:{tmp_path / 'images'}", "--format", "json"]


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*command, "-m", "tests.bench.torchrun_program", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(*arguments: object) -> tuple[int, str, str]:
    process = start(*arguments)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


@pytest.mark.slow
def test_two_processes_make_what_one_makes_and_find_it_made(arguments, tmp_path, run_bench):
    own, both = tmp_path / "own", tmp_path / "both"
    assert run_bench(*arguments, "--results", own)[0] == 0
    for measured in (3, 0):  # the second time there is nothing to train, and nobody waits for it
        code, output, errors = torchrun(*arguments, "--results", both)
        assert code == 0, errors
        assert len(json.loads(output)) == 3  # printed once
        assert f"{measured} of 3 cells measured now" in errors
    trained = [torch.load(next(folder.glob("artifacts/*/network.pt")), weights_only=True) for folder in (own, both)]
    for name, value in trained[0].items():
        assert (trained[1][name] - value).abs().max() < 1e-5, name
    alone, together = ({r.key: r.predictions for r in read_records(folder)} for folder in (own, both))
    assert alone.keys() == together.keys()
    for key, predictions in alone.items():
        pairs = zip(predictions.top5, together[key].top5, strict=True)
        assert sum(a[0] != b[0] for a, b in pairs) <= 2  # of 400
    assert not list(both.glob("artifacts/.*.checkpoint"))


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_and_the_next_run_goes_on(arguments, tmp_path):
    suite, results = tmp_path / "short.toml", tmp_path / "results"
    suite.write_text(SUITE.replace("epochs = 2\nbatch", "epochs = 100\nbatch"))
    arguments += ["--results", results, "--algorithms", "post-training"]
    process = start(*arguments, "--checkpoint-minutes", "0.02")
    deadline = time.monotonic() + 240
    while not list(results.glob("artifacts/.*.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (checkpoint,) = results.glob("artifacts/.*.checkpoint")
    before = step_of(checkpoint)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert step_of(checkpoint) >= before
    code, _, errors = torchrun(*arguments)
    assert code == 0, errors
    assert not checkpoint.exists()


@pytest.mark.slow
def test_bad_input_ends_all_processes_with_one_line(arguments, tmp_path):
    (tmp_path / "short.toml").write_text(SUITE.replace("batch_size = 8", "batch_size = 33"))
    code, output, errors = torchrun(*arguments, "--results", tmp_path / "results")
    assert code != 0
    assert output == ""
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert line == "error: batch_size = 33 does not divide among 2 processes; expected a multiple of that"


def step_of(checkpoint: Path) -> int:
    return unpack(checkpoint.read_bytes()[32:])["state"]["step"]
