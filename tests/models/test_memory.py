"""Memory that stays with the process while networks run."""

import sys

import pytest
import torch

from coreml_prune_bench.models.memory import kept_memory

resource = pytest.importorskip("resource")

BLOCK = 2**25
"""Float32 numbers: more than any threshold of the allocator."""


def faults() -> int:
    """Pages that the kernel had to find for one such block, taken and given back three times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.empty(BLOCK).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_pages_are_found_once_inside_and_given_back_afterwards():
    with kept_memory():
        torch.empty(BLOCK).fill_(1)
        inside = faults()
    outside = faults()
    if not outside:
        pytest.skip("this system counts no page faults")
    assert inside < outside / 3


def test_where_there_is_no_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("asked for it"))
    with kept_memory():
        assert torch.ones(2).sum() == 2
