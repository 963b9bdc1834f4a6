"""The sentence that a suite of latencies ends with, held against scripted speeds."""

from pathlib import Path

import pytest

from coreml_prune_bench.records.latency import Protocol
from coreml_prune_bench.report.does_it_pay import does_it_pay
from coreml_prune_bench.testing import Latency, Script
from tests.latency.sessions import copies, measure, network_of

THREE_ROUNDS = Protocol(rounds=3, predictions=5, seconds=0)


@pytest.mark.parametrize(
    ("sparse_ms", "noise", "words"),
    [
        (1.0, 0.005, "pays, 2.0"),
        (3.0, 0.005, "costs, 0.67 times as fast as dense (0.6"),
        (2.0, 0.005, "makes no difference, 1.0"),
        (1.99, 0.25, "cannot tell"),
    ],
)
def test_each_network_gets_its_sentence(package: Path, tmp_path: Path, sparse_ms: float, noise: float, words: str):
    script = Script({"dense": Latency(ms=2), "sparse": Latency(ms=sparse_ms, noise=noise)})
    records, _ = measure(script, copies(package, tmp_path, "dense", "sparse"), tmp_path, THREE_ROUNDS)
    of_suite = [
        record.model_copy(update={"package": network_of(record.package, algorithm)})
        for record, algorithm in zip(records, ("dense", "sparse-gpt"), strict=True)
    ]
    (line,) = does_it_pay(of_suite)
    assert line.startswith(f"MobileNetv2-1.0 on all: SparseGPT Unstructured Sparsity 50% {words}")


def test_packages_of_no_suite_get_none(package: Path, tmp_path: Path) -> None:
    records, _ = measure(Script(), copies(package, tmp_path, "a", "b"), tmp_path)
    assert does_it_pay(records) == []
