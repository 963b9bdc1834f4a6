"""Several processes come to what one comes to."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.distributed import ALONE, Team

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_come_to_the_weights_of_one(tmp_path):
    """20 steps with BatchNorm, dropout, pruning, a teacher and statistics measured at the end; twice in a row."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "tests.models.part_of_team", str(tmp_path / "out.pt")]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    for together in found["together"]:
        assert together.keys() == found["alone"].keys()
        for name, value in found["alone"].items():
            assert (together[name] - value).abs().max() < 1e-5, name
            assert torch.equal(together[name] == 0, value == 0), name


def test_a_batch_that_does_not_divide_is_one_line():
    with pytest.raises(BenchError, match="batch_size = 66 does not divide among 4 processes; expected a multiple"):
        Team(rank=1, count=4).share_of(66)


def test_the_shares_are_the_batch():
    rows = torch.arange(12)
    assert torch.equal(torch.cat([rows[Team(rank, 3).share_of(12)] for rank in range(3)]), rows)
    assert ALONE.share_of(7) == slice(0, 7)
