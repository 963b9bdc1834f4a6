"""A runtime for worker processes that needs no library: a model does what it is called."""

import os
import signal
import time
from pathlib import Path

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency.bench import Loaded, Opened
from coreml_prune_bench.latency.targets import Target


class FakeRuntime:
    def open(self, target: Target) -> Opened:
        return Opened(self.reopen(target))

    def reopen(self, target: Target) -> Loaded:
        return _Model(target.package.name)

    def load_ns(self, target: Target) -> int | None:
        return None

    def close(self) -> None:
        if place := os.environ.get("FAKE_CLOSED"):
            Path(place).write_text("closed")


class _Model:
    def __init__(self, name: str) -> None:
        self._name = name

    def predict(self) -> object:
        match self._name:
            case "exit":
                os._exit(7)
            case "hang":
                time.sleep(60)
            case "print":
                os.write(1, b"what Core ML's compiler prints\n")
            case "slow":
                time.sleep(0.4)
            case "torch":
                import torch

                return torch
        return None

    def model_ns(self) -> int | None:
        return 1_000_000


def unusable() -> FakeRuntime:
    raise BenchError("no such thing here")


def broken() -> FakeRuntime:
    raise ZeroDivisionError


def load_and(way: str, package: Path):
    """The portable runtime in the place of Core ML: it predicts, or ends its process, hangs or prints."""
    from coreml_prune_bench.runtimes import portable

    if way == "print":
        os.write(1, b"what Core ML's compiler prints\n")
    model = portable.load(package, threads=1)
    if way == "die":
        model.predict_batch = lambda inputs: os.kill(os.getpid(), signal.SIGSEGV)
    if way == "hang":
        model.predict_batch = lambda inputs: time.sleep(60)
    return model
