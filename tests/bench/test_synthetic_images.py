"""Pruning with synthetic images: what needs no training image asks for none, and does not depend on any."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.records.accuracy import Record, read_records
from tests.tiny_network import TINY

SUITE = """
description = "d"
models = ["tiny"]

[[configs]]
algorithm = "sparse-gpt"
sparsity = 0.5
allocation = "sensitivity"
calibration_images = "synthetic"
calibration_samples = 8
batchnorm_samples = 8

[[configs]]
algorithm = "blockwise-reconstruction"
sparsity = 0.5
calibration_images = "synthetic"
calibration_samples = 12
held_back_samples = 4
steps = 3
learning_rates = [0.03]
"""


@pytest.fixture
def measure(run_bench, images, tmp_path):
    weights, suite = tmp_path / "weights", tmp_path / "own.toml"
    weights.mkdir()
    torch.save(untrained_model(TINY, 3).state_dict(), weights / "tiny.pth")
    suite.write_text(SUITE)

    def run(results: Path) -> list[Record]:
        code, output, errors = run_bench(
            "run", "--suite", suite, "--data", f"imagefolder:{images}", "--weights", weights, "--results", results,
            "--format", "json",
        )  # fmt: skip
        assert code == 0, errors
        assert len(json.loads(output)) == 3
        return [record for record in read_records(results) if record.pruning.config != "Float16"]

    return run


def test_networks_are_pruned_without_a_train_split(measure, images, tmp_path):
    shutil.rmtree(images / "train")
    records = measure(tmp_path / "results")
    assert {record.pruning.config for record in records} == {
        "Unstructured Sparsity 50%, allocated by sensitivity, synthetic images, BatchNorm re-estimated",
        "Unstructured Sparsity 50%, synthetic images",
    }
    for record in records:
        assert record.status == "measured", record.reason
        assert record.data.train_fingerprint is None
        pruned = [layer for layer in record.package.layers if layer.target]
        assert pruned
        assert all(layer.sparsity == pytest.approx(layer.target, abs=0.005) for layer in pruned)


def test_training_images_that_are_there_change_nothing(measure, images, tmp_path):
    packages = {record.key: record.package.sha256 for record in measure(tmp_path / "with")}
    shutil.rmtree(images / "train")
    assert {record.key: record.package.sha256 for record in measure(tmp_path / "without")} == packages
