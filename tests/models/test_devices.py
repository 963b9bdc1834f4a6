"""The choice of a device, as far as a machine without a GPU can say; and what one would get."""

import pytest
import torch

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models import devices
from coreml_prune_bench.models.devices import (
    CPU,
    choose_device,
    describe,
    low_precision,
    own_random_numbers,
    random_state,
)


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many CUDA devices there seem to be, and whether there is an Apple GPU."""

    def pretend(cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


def test_auto_is_cuda_then_apples_gpu_then_the_cpu(gpus):
    gpus(cuda=2, mps=True)
    assert choose_device("auto") == torch.device("cuda:0")
    gpus(mps=True)
    assert choose_device("auto", mps_is_right=lambda: True) == torch.device("mps")
    assert choose_device("auto", mps_is_right=lambda: False) == CPU
    assert choose_device("auto", processes=2, mps_is_right=lambda: True) == CPU
    gpus()
    assert choose_device("auto") == CPU


def test_each_process_takes_the_gpu_of_its_number(gpus):
    gpus(cuda=2)
    assert choose_device("cuda", local_rank=1, processes=2) == torch.device("cuda:1")
    assert choose_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("name", "processes", "message"),
    [
        ("gpu", 1, "--device gpu: expected auto, cpu, cuda, cuda:N or mps"),
        ("cuda:", 1, "expected auto"),
        ("cuda:x", 1, "expected auto"),
        ("cpu:1", 1, "expected auto"),
        ("mps", 1, "--device mps: torch finds no Apple GPU"),
        ("cuda:2", 1, "--device cuda:2: there is no GPU number 2 among the 2"),
        ("cuda:0", 2, "--device cuda:0 is one device for 2 processes"),
        ("mps", 2, "--device mps is one device for 2 processes"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(gpus, name, processes, message):
    gpus(cuda=2)
    with pytest.raises(BenchError) as raised:
        choose_device(name, processes=processes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_cuda_none_is_found(gpus):
    gpus()
    with pytest.raises(BenchError, match="no GPU number 0 among the 0"):
        choose_device("cuda")


def test_the_cpu_computes_in_full_precision_and_is_called_by_its_threads(threads):
    assert low_precision(CPU) is None
    threads(1)
    assert describe(CPU) == "cpu (1 thread)"
    threads(2)
    assert describe(CPU) == "cpu (2 threads)"
    assert describe(CPU, processes=4) == "4 x cpu (2 threads)"


def test_random_numbers_inside_are_the_seeds_and_leave_no_trace():
    before = torch.get_rng_state()
    with own_random_numbers(CPU, seed=3):
        drawn = torch.rand(4)
        state = random_state(CPU)
        later = torch.rand(4)
        devices.set_random_state(CPU, state)
        assert torch.equal(torch.rand(4), later)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(3)))
