"""Every check in a process of its own: one that aborts or hangs is a result like any other."""

import json
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coreml_prune_bench.core.cache_folder import cache_folder
from coreml_prune_bench.core.environment import environment
from coreml_prune_bench.core.errors import BenchError, DamagedFileError
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.core.keys import code_version
from coreml_prune_bench.core.progress import Steps
from coreml_prune_bench.latency.mac import Tool, run_tool
from coreml_prune_bench.latency.self_test.check import CHECKS, Check, Found, Here, NotApplicable
from coreml_prune_bench.latency.self_test.scrub import scrubbed
from coreml_prune_bench.latency.worker import spare_imports
from coreml_prune_bench.records.provenance import provenance
from coreml_prune_bench.records.schemas import read_file_as
from coreml_prune_bench.runtimes.coreml import said

_BUILD_LIMIT_S = 300.0
_PACKAGES = ("coremltools", "numpy", "onnx", "onnxruntime", "torch")
_WITH_TORCH = (20, 28)
"""The checks that need torch: Apple's GPU, and Core AI, whose package is converted from it."""

Enter = Callable[[], None]
"""What a process does before all else; has to be picklable. Tests enter a scripted Mac."""


class SelfTest(BaseModel):
    """What a machine's self-test found. environment: versions and texts of the system, without names and serials."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    finished: bool = False
    environment: dict[str, Any]
    checks: tuple[Found, ...] = Field(default=())

    @property
    def failed(self) -> tuple[Found, ...]:
        """What does not hold."""
        return tuple(found for found in self.checks if found.outcome == "does not")


class SelfTests:
    """One run. enter: done first in each process.

    start: how processes are started. Apple's libraries bear no fork; on the stand-in it spares the imports.
    """

    def __init__(
        self,
        *,
        device: str | None = None,
        enter: Enter | None = None,
        start: str = "spawn",
        packages: Path | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        self._device = device
        self._enter = enter
        self._start = start
        self._packages = packages or cache_folder() / "self-test" / code_version("latency.self_test.packages")[:16]
        self._environment = dict(environment or {}) or read_environment()

    def run(self, steps: Steps, out: Path | None = None, checks: Sequence[Check] = CHECKS) -> SelfTest:
        """All checks. out: the file, written after each; one of this environment that was stopped is gone on with."""
        known = {found.number: found for found in self._stopped(out)}
        whole = SelfTest(environment=self._environment)
        with tempfile.TemporaryDirectory() as scratch:
            for check in checks:
                steps.update(f"{check.number} {check.name}", 0, 1)
                found = known.get(check.number) or self._found(check, Path(scratch) / str(check.number))
                whole = whole.model_copy(update={"checks": (*whole.checks, found)})
                if out is not None:
                    write_atomically(out, whole.model_dump_json(indent=1) + "\n")
                steps.advance()
        whole = whole.model_copy(update={"finished": True})
        if out is not None:
            write_atomically(out, whole.model_dump_json(indent=1) + "\n")
        return whole

    def _stopped(self, out: Path | None) -> tuple[Found, ...]:
        if out is None or not out.is_file():
            return ()
        try:
            before = read_self_test(out)
        except DamagedFileError:
            return ()  # of a run that was killed while it wrote
        same = before.environment == self._environment
        return before.checks if same and not before.finished else ()

    def _found(self, check: Check, scratch: Path) -> Found:
        began = time.monotonic()
        values: dict[str, Any] = {}
        wrong: list[str] = []
        limit_s = check.limit_s + (_BUILD_LIMIT_S if check.core_ml and not self._packages.is_dir() else 0)
        job = (check, self._packages, scratch, self._device, self._enter, self._start)
        kind, reason = _in_process(
            self._start, _check, job, {}, limit_s, lambda name, value: values.update({name: value}), wrong
        )
        outcome: Any = (
            "not applicable" if kind == "not applicable" else "does not" if kind != "done" or wrong else "holds"
        )
        names = (self._device,) if self._device else ()
        told = reason if kind != "done" else "; ".join(wrong) or None
        return Found(
            number=check.number,
            name=check.name,
            assumes=check.assumes,
            outcome=outcome,
            reason=scrubbed(told, names=names),
            values=scrubbed(json.loads(json.dumps(values, default=str)), names=names),
            seconds=round(time.monotonic() - began, 1),
        )


def read_self_test(path: Path) -> SelfTest:
    """Read the file of a self-test. Raises DamagedFileError for half a file, BenchError for a later schema."""
    return read_file_as(SelfTest, "self-test", path)


def read_environment(tool: Tool = run_tool) -> dict[str, Any]:
    """Versions and what the system says of itself, without names and serials."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    found = {
        "sw_vers": tool(("sw_vers",)),
        "uname": f"{platform.system()} {platform.release()} {platform.version()}",
        "python": platform.python_version(),
        "executable": sys.executable,
        "machine": platform.machine(),
        "versions": versions,
        "commit": provenance().model_dump(mode="json").get("git_commit"),
    }
    scrubbed_: dict[str, Any] = scrubbed(found)
    return scrubbed_


# --- processes


def _in_process(
    start: str,
    target: Callable[..., None],
    job: tuple[Any, ...],
    variables: Mapping[str, str],
    limit_s: float,
    note: Callable[[str, Any], None],
    wrong: list[str],
) -> tuple[str, str | None]:
    """Run `target(connection, *job)` in a new process: how it ended ("done", "not applicable", "failed"), and why."""
    context: Any = multiprocessing.get_context(start)
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, dict(variables), *job))
    # Before it starts: libraries read them when they are loaded, tqdm (coremltools' progress bars) among them.
    with environment(**variables, TQDM_DISABLE="1"):
        process.start()
    theirs.close()
    until = time.monotonic() + limit_s
    try:
        while ours.poll(max(0.0, until - time.monotonic())):
            match ours.recv():
                case ("note", name, value):
                    note(name, value)
                case ("wrong", what):
                    wrong.append(what)
                case (ending, why):
                    process.join(10)
                    return ending, why
        return "failed", f"hung: no end within {limit_s:g} s"
    except (EOFError, ConnectionError):
        process.join(10)
        return "failed", f"crashed: its process {_ending(process.exitcode)}"
    finally:
        process.kill()
        process.join()
        ours.close()


def _ending(code: int | None) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with code {code}"


def _prepared(variables: dict[str, str], enter: Enter | None, *, torch: bool = False) -> None:
    os.environ.update(variables)
    if torch:
        for name in ("torch", "sklearn"):  # a server that forks may have spared them
            if sys.modules.get(name, name) is None:
                del sys.modules[name]
    else:
        spare_imports()
    os.dup2(2, 1)  # Core ML's compiler, and the binding, write to standard output
    if enter is not None:
        enter()


def _check(
    connection: Connection,
    variables: dict[str, str],
    check: Check,
    packages: Path,
    scratch: Path,
    device: str | None,
    enter: Enter | None,
    start: str,
) -> None:
    _prepared(variables, enter, torch=check.number in _WITH_TORCH)
    scratch.mkdir(parents=True, exist_ok=True)

    def other_process(function: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
        answers: dict[str, Any] = {}
        job = (function, arguments, enter, check.number in _WITH_TORCH)
        kind, reason = _in_process(
            start, _call, job, environment, check.limit_s, lambda name, value: answers.update({name: value}), []
        )
        if kind != "done":
            raise BenchError(str(reason))
        return answers["answer"]

    here = Here(
        packages,
        scratch,
        device,
        note=lambda name, value: connection.send(("note", name, value)),
        wrong=lambda text: connection.send(("wrong", text)),
        other_process=other_process,
    )
    try:
        if check.core_ml:
            _require_core_ml()
            from coreml_prune_bench.latency.self_test.packages import make

            make(packages)
        elif check.number > 1 and sys.platform != "darwin":
            raise NotApplicable(f"this is no Mac but {platform.system()}")
        check.run(here)
        connection.send(("done", None))
    except NotApplicable as error:
        connection.send(("not applicable", str(error)))
    except Exception as error:
        connection.send(("failed", f"{type(error).__name__}: {said(error)}"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _call(
    connection: Connection,
    variables: dict[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    enter: Enter | None,
    torch: bool,
) -> None:
    _prepared(variables, enter, torch=torch)
    try:
        connection.send(("note", "answer", function(*arguments)))
        connection.send(("done", None))
    except Exception as error:
        connection.send(("failed", f"{type(error).__name__}: {said(error)}"))


def _require_core_ml() -> None:
    from coreml_prune_bench.runtimes import coreml

    if sys.platform != "darwin" or not coreml.is_available():
        raise NotApplicable("Core ML does not load here: see check 1")
