"""Where a training computes: the accelerator if there is one, and what makes it fast there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from coreml_prune_bench.models import mps
from coreml_prune_bench.models.errors import BenchError

CPU = torch.device("cpu")


def choose_device(
    name: str,
    *,
    local_rank: int = 0,
    processes: int = 1,
    mps_is_right: Callable[[], bool] = lambda: mps.examine().right,
) -> torch.device:
    """The device called `name`: "auto", "cpu", "mps", "cuda" or "cuda:N". Raises BenchError if it is not there.

    "auto" is CUDA, else Apple's GPU if `mps_is_right` says so (which may take seconds), else the CPU. Of several
    processes each takes the GPU of its number.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if processes == 1 and torch.backends.mps.is_available() and mps_is_right() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in name and not (kind == "cuda" and number.isdecimal())):
        raise BenchError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")
    if processes > 1 and (number or kind == "mps"):
        raise BenchError(f"--device {name} is one device for {processes} processes: give cuda, for a GPU each, or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise BenchError("--device mps: torch finds no Apple GPU; give another device, or leave the option out")
    if kind != "cuda":
        return mps.device() if kind == "mps" else CPU
    index = int(number or local_rank)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= gpus:
        raise BenchError(f"--device {name}: there is no GPU number {index} among the {gpus} that torch can use")
    return torch.device("cuda", index)


def describe(device: torch.device, processes: int = 1) -> str:
    """For provenance, such as "cuda (NVIDIA H100 80GB HBM3)" or "cpu (2 threads)": what a sum is rounded by.

    processes: that train together, each with such a device or so many threads.
    """
    if device.type == "cuda":
        told = f"cuda ({torch.cuda.get_device_name(device)})"
    elif device.type == "cpu":
        told = f"cpu ({torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''})"
    else:
        told = device.type
    return f"{processes} x {told}" if processes > 1 else told


def low_precision(device: torch.device) -> torch.dtype | None:
    """What mixed precision computes in on this device; None where it does not pay."""
    if device.type != "cuda":
        return None
    with torch.cuda.device(device):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


@contextmanager
def tuned(device: torch.device) -> Iterator[None]:
    """Inside, cuDNN tries its algorithms on the first batch and keeps the fastest; all batches have one shape."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device), torch.backends.cudnn.flags(enabled=True, benchmark=True):
        yield


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Inside, products of Float32 are not rounded to fewer bits, which tensor cores do."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def own_random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """Inside, torch draws from `seed`; outside, nothing of it is seen."""
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        yield


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Where torch's generators stand: the CPU's and the device's own."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state(device)
    return state


def set_random_state(device: torch.device, state: dict[str, torch.Tensor]) -> None:
    """Put the generators back; the device's own only if `state` was taken on such a device."""
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type], device)
