"""Threads of the portable runtime: on processors that this process may use, tied to none, and of no say in results."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import coreml_prune_bench.models.networks  # noqa: F401
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weights import untrained_model
from coreml_prune_bench.runtimes.portable import load

TASKS = Path("/proc/self/task")


@pytest.mark.skipif(sys.platform != "linux", reason="macOS ties no process to processors")
def test_threads_are_as_many_as_this_process_has_cores_and_tied_to_none_of_them(package: Path) -> None:
    may_use = os.sched_getaffinity(0)
    for allowed in (may_use, {max(may_use)}, {min(may_use)}):
        os.sched_setaffinity(0, allowed)
        try:
            before = set(os.listdir(TASKS))
            model = load(package)
            new = set(os.listdir(TASKS)) - before
            assert [os.sched_getaffinity(int(task)) for task in new] == [allowed] * len(new)
            assert len(new) < len(allowed)  # the one that asks is one of them
        finally:
            os.sched_setaffinity(0, may_use)
        del model


@pytest.mark.parametrize("images", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_predictions_are_the_same_bits_whatever_the_number_of_threads(tmp_path: Path, images: int) -> None:
    model = untrained_model(get_network("mobilenet_v2"), 10).eval()
    to_coreml(model, 64).save(str(tmp_path / "m.mlpackage"))
    pixels = np.random.default_rng(0).integers(0, 256, (images, 64, 64, 3), dtype=np.uint8)
    one, *others = (
        next(iter(load(tmp_path / "m.mlpackage", threads=threads).predict_batch({"image": pixels}).values())).tobytes()
        for threads in (1, 2, 3, 8)
    )
    assert others == [one] * 3
