"""Packages tried in a process of their own, with bounded memory and time: whatever they do, the tests go on.

The process imports what a prediction needs before its memory is limited, and is replaced when it is lost.
"""

import multiprocessing
import resource
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from coreml_prune_bench.core.errors import BenchError

_SECONDS = 60.0
_BYTES = 3 << 30
"""Above what the process has when it starts. A prediction with the packages of these tests needs some 50 MB."""
_MOST_ELEMENTS = 1 << 20
"""Of an input. A damaged package may declare a larger one; the test does not make it."""


class Attempts:
    """Runs packages one after the other in a process that may crash."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()  # ready

    def outcome(self, package: Path) -> str:
        """ "ran", "refused: (why)", or what a package must never do: "raised: ...", "crashed ...", "hung ..."."""
        self._connection.send(package)
        try:
            if self._connection.poll(_SECONDS):
                return str(self._connection.recv())
            ended = f"hung: no answer after {_SECONDS:.0f} s"
        except (EOFError, ConnectionResetError):
            self._process.join()
            ended = f"crashed with exit code {self._process.exitcode}"
        self.close()
        self._start()
        return ended

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection) -> None:
    from coremltools.proto import Model_pb2  # noqa: F401

    from coreml_prune_bench.mlprogram.summary import read_package  # noqa: F401
    from coreml_prune_bench.runtimes.portable.session import Model  # noqa: F401

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _BYTES, used + _BYTES))
    connection.send("ready")
    with suppress(EOFError):
        while True:
            connection.send(_attempt(connection.recv()))


def _attempt(package: Path) -> str:
    from coreml_prune_bench.mlprogram.summary import read_package
    from coreml_prune_bench.runtimes.portable import load

    try:
        refusal = ""
        try:
            read_package(package)
        except BenchError as error:
            refusal = str(error)
        model = load(package, threads=1, cache=False)
        if all(np.prod(feature.default_shape) <= _MOST_ELEMENTS for feature in model.program.inputs):
            inputs = {f.name: np.ones(f.default_shape, f.dtype) for f in model.program.inputs if f.default is None}
            model.predict(inputs, model.make_state() if model.program.states else None)
    except BenchError as error:
        refusal = str(error)
    except Exception:
        return f"raised: {traceback.format_exc()}"
    if not refusal:
        return "ran"
    return f"refused: {refusal}" if str(package) in refusal else f"unclear: {refusal}"
