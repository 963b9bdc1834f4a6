"""Memory that stays with the process while networks run."""

import subprocess
import sys

import pytest
import torch

from coreml_prune_bench.models.memory import kept_memory

# What a process holds after a block, larger than any threshold of the allocator, was taken and given back. In a process
# of its own: what others have taken and given back before decides where a block goes.
_HELD = """
import re, torch
from coreml_prune_bench.models.memory import kept_memory

def held_mib():
    torch.empty(2**25).fill_(1)  # 128 MiB
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

outside = held_mib()
with kept_memory():
    inside = held_mib()
print(inside - outside, held_mib() - outside)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_is_freed_stays_with_the_process_inside_and_is_given_back_afterwards():
    done = subprocess.run([sys.executable, "-c", _HELD], capture_output=True, text=True, check=True)
    inside_mib, afterwards_mib = map(int, done.stdout.split())
    assert inside_mib > 100
    assert afterwards_mib < 20


def test_where_there_is_no_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("asked for it"))
    with kept_memory():
        assert torch.ones(2).sum() == 2
