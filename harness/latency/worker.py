"""The process that predicts. One that hangs is killed, one that dies is replaced, and the caller goes on.

It has to be a process: coremltools holds Python's global lock while Core ML predicts (no release of it in its
CoreMLPython.mm), so a thread beside a prediction that hangs would never run. For the same reason several predictions
at a time need several processes.
"""

import functools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal

from coreml_prune_bench.core.environment import environment
from coreml_prune_bench.core.errors import BenchError, told
from coreml_prune_bench.core.time_limit import answers, end_with_parent
from coreml_prune_bench.latency.bench import Bench, Runtime, SleptError
from coreml_prune_bench.runtimes.coreml import said

OpenRuntime = Callable[[], Runtime]
"""Makes the runtime in the worker; has to be picklable. BenchError from it ends the run."""

Step = Literal["prepare", "visit", "drop", "wake", "energy", "memory", "load"]
"""The methods of `Bench`."""

FRESH_HOME = "CFFIXED_USER_HOME"
"""Core Foundation's, and so the system's caches are then in another home folder."""

START_LIMIT_SECONDS = 900.0
"""Importing takes seconds, building and signing the app for an iPhone minutes."""


_END_LIMIT_SECONDS = 5.0


class StepFailedError(Exception):
    """A target that could not be prepared or visited; the message is the reason for its record."""


class VisitLostError(Exception):
    """A visit whose samples are none, because the machine slept meanwhile; it can be made again."""


class Workers:
    """`count` processes that do the same steps at the same time. limit_s: of silence, after which a step has hung."""

    def __init__(self, open_runtime: OpenRuntime, *, limit_s: float, count: int = 1) -> None:
        self._open_runtime = open_runtime
        self._limit_s = limit_s
        self._workers: list[Worker] = []
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
            except (StepFailedError, VisitLostError, GoneError) as error:
                failures.append(error)
        if any(isinstance(error, GoneError) for error in failures):
            self._stop()
        if failures and all(isinstance(error, VisitLostError) for error in failures):
            raise failures[0]
        if failures:
            raise StepFailedError(str(failures[0]))
        return results

    def ask_alone(self, step: Step, *arguments: Any, cold: bool = False) -> Any:
        """What a process that ends after the step returns for it. Raises as `ask`.

        cold: it finds nothing in the system's cache, whose folder is a new one.
        """
        with tempfile.TemporaryDirectory() as home, environment(**({FRESH_HOME: home} if cold else {})):
            worker = Worker(functools.partial(_bench, self._open_runtime))
            try:
                worker.receive(START_LIMIT_SECONDS)
                worker.send(step, arguments)
                return worker.receive(self._limit_s)
            except GoneError as error:
                raise StepFailedError(str(error)) from error
            finally:
                worker.end()

    def _start(self) -> None:
        for _ in range(self._count):
            self._workers.append(Worker(functools.partial(_bench, self._open_runtime)))
        for worker in self._workers:
            try:
                worker.receive(START_LIMIT_SECONDS)
            except (StepFailedError, GoneError) as error:
                self._stop()
                raise BenchError(f"the measuring process could not start: {error}") from error

    def _stop(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()


class GoneError(Exception):
    """The process hung and was killed, or ended by itself."""


class Worker:
    """One process that does the steps of what `make` makes there. make: gets a function that gives a sign of life."""

    def __init__(self, make: Callable[[Callable[[], None]], Any]) -> None:
        # Spawned, not forked: Apple's frameworks do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, step: str, arguments: tuple[Any, ...]) -> None:
        """Ask for a step; `receive` has its result."""
        with suppress(ConnectionError):  # that it is gone, `receive` will tell
            self._connection.send((step, arguments))

    def receive(self, limit_s: float) -> Any:
        """The next result. Raises StepFailedError, GoneError after `limit_s` of silence or when the process ended."""
        while True:
            if not answers(self._connection, limit_s):
                raise GoneError(f"hung: no sign of life for {limit_s:g} s, so its process was killed")
            try:
                kind, content = self._connection.recv()
            except (EOFError, ConnectionError) as error:
                self._process.join(5)
                raise GoneError(f"its process ended by itself ({_told_exit(self._process.exitcode)})") from error
            match kind:
                case "failed":
                    raise StepFailedError(content)
                case "lost":
                    raise VisitLostError(content)
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
        """At once, as one that hangs."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _told_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"


# --- in the process


def _bench(open_runtime: OpenRuntime, alive: Callable[[], None]) -> Bench:
    return Bench(open_runtime(), time.perf_counter_ns, time.time_ns, beat=alive, sleep=time.sleep)


def _serve(connection: Connection, make: Callable[[Callable[[], None]], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act upon, which then ends this process
    end_with_parent()
    spare_imports()
    os.dup2(2, 1)  # Core ML's compiler writes to standard output, which is for tables
    try:
        made = make(lambda: connection.send(("alive", None)))
    except Exception as error:
        if (line := told(error)) is None:
            raise
        connection.send(("unusable", line))
        return
    connection.send(("done", None))
    try:
        with suppress(EOFError, ConnectionError):  # the parent has closed its end
            while True:
                step, arguments = connection.recv()
                connection.send(_outcome(made, step, arguments))
    finally:
        made.close()


def spare_imports() -> None:
    """What coremltools imports wherever it is installed, to convert from it: seconds, and torch's pool of threads."""
    for name in ("torch", "sklearn"):
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]


def _outcome(made: Any, step: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "done", getattr(made, step)(*arguments)
    except SleptError as error:
        return "lost", str(error)
    except ConnectionError:  # a sign of life that the parent does not wait for any more
        raise
    except Exception as error:
        return "failed", in_a_line(error)


def in_a_line(error: Exception) -> str:
    """What a failed step's error says. An error of ours is a sentence already."""
    text = said(error)
    return text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"
