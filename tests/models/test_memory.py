"""Memory that stays with the process while networks run."""

import subprocess
import sys

import pytest
import torch

from coreml_prune_bench.models.memory import kept_memory

# Pages that the kernel has to find for one block, larger than any threshold of the allocator, taken three times. In a
# process of its own: what others have taken and given back before decides where a block goes.
_COUNT = """
import resource, torch
from coreml_prune_bench.models.memory import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.empty(2**25).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with kept_memory():
    torch.empty(2**25).fill_(1)
    inside = faults()
print(inside, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_pages_are_found_once_inside_and_given_back_afterwards():
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=True)
    inside, outside = map(int, done.stdout.split())
    if not outside:
        pytest.skip("this system counts no page faults")
    assert inside < outside / 3


def test_where_there_is_no_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("asked for it"))
    with kept_memory():
        assert torch.ones(2).sum() == 2
