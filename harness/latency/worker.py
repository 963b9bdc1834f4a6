"""The process that predicts. One that hangs is killed, one that dies is replaced, and the caller goes on.

It has to be a process: coremltools holds Python's global lock while Core ML predicts (no release of it in its
CoreMLPython.mm), so a thread beside a prediction that hangs would never run. For the same reason several predictions
at a time need several processes.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal

from coreml_prune_bench.core.errors import BenchError, told
from coreml_prune_bench.latency.bench import Bench, Runtime

OpenRuntime = Callable[[], Runtime]
"""Makes the runtime in the worker; has to be picklable. BenchError from it ends the run."""

Step = Literal["prepare", "visit", "drop"]
"""The methods of `Bench`."""

START_LIMIT_SECONDS = 900.0
"""Importing takes seconds, building and signing the app for an iPhone minutes."""


_END_LIMIT_SECONDS = 5.0


class StepFailedError(Exception):
    """A target that could not be prepared or visited; the message is the reason for its record."""


class Workers:
    """`count` processes that do the same steps at the same time. limit_s: of silence, after which a step has hung."""

    def __init__(self, open_runtime: OpenRuntime, *, limit_s: float, count: int = 1) -> None:
        self._open_runtime = open_runtime
        self._limit_s = limit_s
        self._workers: list[_Worker] = []
        self._count = count

    def __enter__(self) -> "Workers":
        return self  # the first step starts the processes: there may be none to take

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def ask(self, step: Step, *arguments: Any) -> list[Any]:
        """What each process returns for the step. Raises StepFailedError; the processes are usable again after it."""
        if not self._workers:
            self._start()
        for worker in self._workers:
            worker.send(step, arguments)
        results: list[Any] = []
        failures: list[Exception] = []
        # Each is waited for even if another failed: what it sends would otherwise be taken for the next step's result.
        for worker in self._workers:
            try:
                results.append(worker.receive(self._limit_s))
            except (StepFailedError, _GoneError) as error:
                failures.append(error)
        if any(isinstance(error, _GoneError) for error in failures):
            self._stop()
        if failures:
            raise StepFailedError(str(failures[0]))
        return results

    def _start(self) -> None:
        for _ in range(self._count):
            self._workers.append(_Worker(self._open_runtime))
        for worker in self._workers:
            try:
                worker.receive(START_LIMIT_SECONDS)
            except (StepFailedError, _GoneError) as error:
                self._stop()
                raise BenchError(f"the measuring process could not start: {error}") from error

    def _stop(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()


class _GoneError(Exception):
    """The process hung and was killed, or ended by itself."""


class _Worker:
    def __init__(self, open_runtime: OpenRuntime) -> None:
        # Spawned, not forked: Apple's frameworks do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, open_runtime), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, step: Step, arguments: tuple[Any, ...]) -> None:
        with suppress(ConnectionError):  # that it is gone, `receive` will tell
            self._connection.send((step, arguments))

    def receive(self, limit_s: float) -> Any:
        while True:
            if not self._connection.poll(limit_s):
                raise _GoneError(f"hung: no sign of life for {limit_s:g} s, so its process was killed")
            try:
                kind, content = self._connection.recv()
            except (EOFError, ConnectionError) as error:
                self._process.join(5)
                raise _GoneError(f"its process ended by itself ({_told_exit(self._process.exitcode)})") from error
            match kind:
                case "failed":
                    raise StepFailedError(content)
                case "unusable":
                    raise BenchError(content)
                case "done":
                    return content

    def end(self) -> None:
        """Let it give back what it holds; one that does not end in time is killed."""
        self._connection.close()
        self._process.join(_END_LIMIT_SECONDS)
        self._process.kill()
        self._process.join()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _told_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"


# --- in the process


def _serve(connection: Connection, open_runtime: OpenRuntime) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act upon, which then ends this process
    _spare_imports()
    os.dup2(2, 1)  # Core ML's compiler writes to standard output, which is for tables
    try:
        runtime = open_runtime()
    except Exception as error:
        if (line := told(error)) is None:
            raise
        connection.send(("unusable", line))
        return
    bench = Bench(runtime, time.perf_counter_ns, beat=lambda: connection.send(("alive", None)))
    connection.send(("done", None))
    try:
        with suppress(EOFError, ConnectionError):  # the parent has closed its end
            while True:
                step, arguments = connection.recv()
                connection.send(_outcome(bench, step, arguments))
    finally:
        runtime.close()


def _spare_imports() -> None:
    """What coremltools imports wherever it is installed, to convert from it: seconds, and torch's pool of threads."""
    for name in ("torch", "sklearn"):
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]


def _outcome(bench: Bench, step: Step, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "done", getattr(bench, step)(*arguments)
    except ConnectionError:  # a sign of life that the parent does not wait for any more
        raise
    except Exception as error:
        return "failed", _told(error)


def _told(error: Exception) -> str:
    """In one line. An error of ours is a sentence already."""
    text = " ".join(str(error).split())
    return text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"
