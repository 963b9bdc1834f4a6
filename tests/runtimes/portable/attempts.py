"""Packages tried in a process of their own, with bounded memory and time: whatever they do, the tests go on.

The process imports what a prediction needs before its memory is limited, and is replaced when it is lost.
"""

import multiprocessing
import os
import resource
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from coreml_prune_bench.accuracy.predict import describe
from coreml_prune_bench.core.errors import BenchError

_MOST_ELEMENTS = 1 << 20
"""Of an input. A damaged package may declare a larger one; the test does not make it."""


@dataclass(frozen=True)
class Attempt:
    """What came of a package, until when, what of that the process computed, and its memory beside the imports.

    outcome: "ran", "refused: (why)", "endless" where it was loaded and did not end in time, or what a package must
    never do: "raised: ...", "crashed ...", "hung ...".
    """

    outcome: str
    seconds: float
    processor_s: float
    mebibytes: float
    children_mebibytes: float = 0.0
    """The most that a process has held which this one ever started: at first what this one holds."""


class Attempts:
    """Runs packages one after the other in a process that may crash.

    seconds: what one may take; most_bytes: above what the process has when it starts.
    """

    def __init__(self, seconds: float = 60.0, most_bytes: int = 3 << 30) -> None:
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._most_bytes), daemon=True)
        self._process.start()
        theirs.close()
        self._imported = self._connection.recv()

    def outcome(self, package: Path) -> str:
        return self.attempt(package).outcome

    def attempt(self, package: Path) -> Attempt:
        start, computed = time.monotonic(), _processor_s(self._process.pid or 0)
        loaded, peak, children = False, 0.0, 0.0

        def result(outcome: str) -> Attempt:
            spent = max(0.0, _processor_s(self._process.pid or 0) - computed)
            return Attempt(outcome, time.monotonic() - start, spent, peak - self._imported, children)

        self._connection.send(package)
        try:
            while self._connection.poll(max(0.0, start + self._seconds - time.monotonic())):
                told, peak, children = self._connection.recv()
                if told != _LOADED:
                    return result(told)
                loaded = True
            peak = max(peak, _peak(self._process.pid or 0))
            ended = "endless" if loaded else f"hung: no answer after {self._seconds:.0f} s"
        except (EOFError, ConnectionResetError):
            self._process.join()
            ended = f"crashed with exit code {self._process.exitcode}"
        attempt = result(ended)
        self.close()
        self._start()
        return attempt

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


_LOADED = "loaded"


def _processor_s(process: int) -> float:
    """What a process has computed so far; 0 once it is gone."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _peak(process: int) -> float:
    """The most memory that a process has held, in MiB."""
    with suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return 0.0


def _peaks() -> tuple[float, float]:
    """Of this process, and of those that it started and that have ended."""
    return _peak(os.getpid()), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _serve(connection: Connection, most_bytes: int) -> None:
    from coremltools.proto import Model_pb2  # noqa: F401

    from coreml_prune_bench.aimodel.programs import read_package  # noqa: F401
    from coreml_prune_bench.runtimes.portable.session import Model  # noqa: F401

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + most_bytes, used + most_bytes))
    connection.send(_peak(os.getpid()))
    with suppress(EOFError):
        while True:
            package = connection.recv()
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            told = _attempt(package, lambda: connection.send((_LOADED, *_peaks())))
            connection.send((told, *_peaks()))


def _attempt(package: Path, on_loaded: Callable[[], None]) -> str:
    from coreml_prune_bench.aimodel.programs import read_program
    from coreml_prune_bench.mlprogram.summary import summarize
    from coreml_prune_bench.runtimes.portable import load

    try:
        refusal = ""
        program = read_program(package)
        try:
            summarize(program)
        except BenchError as error:
            refusal = str(error)
        model = load(package, threads=1, cache=False)
        on_loaded()
        if all(np.prod(feature.default_shape) <= _MOST_ELEMENTS for feature in model.program.inputs):
            inputs = {f.name: np.ones(f.default_shape, f.dtype) for f in model.program.inputs if f.default is None}
            results = model.predict(inputs, model.make_state() if model.program.states else None)
            for value in results.values():
                describe(value, 5)
    except BenchError as error:
        refusal = str(error)
    except Exception:
        return f"raised: {traceback.format_exc()}"
    if not refusal:
        return "ran"
    return f"refused: {refusal}" if str(package) in refusal else f"unclear: {refusal}"
