"""How a command ends: its exit code, its last line, and what signals and streams that take nothing more do to it."""

import errno
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TextIO

from coreml_prune_bench.core.errors import told
from coreml_prune_bench.core.escaping import printable
from coreml_prune_bench.core.extras import extras_named
from coreml_prune_bench.core.progress import say

_NO, _MEND, _SIGNALLED = 1, 2, 128  # and the signal's number, as shells have it
_UNREAD = _SIGNALLED + 13  # SIGPIPE's, which Python ignores

EXIT_CODES = {
    0: "done",
    _NO: "done, and the answer is no: something failed, is worse or is missing, or a goal is not met; or a bug of "
    "this program, with a traceback",
    _MEND: "what you can mend, in one line, and a wrong call; of `gate` also rows that cannot be compared",
    _SIGNALLED + 1: "ended by SIGHUP, as when a terminal is closed",
    _SIGNALLED + 2: "ended by Ctrl-C (SIGINT)",
    _UNREAD: "nobody read standard output to its end, as in `table | head`",
    _SIGNALLED + 15: "ended by SIGTERM",
}
"""What each means. docs/commands.md says it by command."""

_LOOK_SECONDS = 1.0
_SAME_SECONDS = 0.5
"""A second signal so soon after the first is the same wish: `timeout` sends one to the process and one to its group."""
_STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class _UnwritableError(BaseException):
    """Standard output takes nothing more. No error, so that it is not taken for one of a file at hand."""

    def __init__(self, cause: OSError) -> None:
        self.cause = cause


def end_with(command: Callable[[], object]) -> NoReturn:
    """Run `command`, which may itself end the program, and end the program with one of EXIT_CODES."""
    stop = _Stop()
    with stop.armed(), _streams_watched():
        code = _code_of(command, stop)
    sys.exit(code)


def _code_of(command: Callable[[], object], stop: "_Stop") -> int:
    try:
        code = _called(command)
        sys.stdout.flush()
    except KeyboardInterrupt:
        number = stop.number or signal.SIGINT
        name = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        say(f"error: {name}; what was finished is kept, the same command goes on from there")
        return _SIGNALLED + number
    except _UnwritableError as full:
        if full.cause.errno == errno.EPIPE:
            return _UNREAD
        say(f"error: standard output: {told(full.cause)}")
        return _MEND
    except Exception as error:
        if line := told(error):
            say(f"error: {line}")
            return _MEND
        from importlib.metadata import version  # takes longer to import than a command to read what it shows

        sys.stderr.write(printable("".join(traceback.format_exception(error))))
        say(
            f"this is a bug in coreml-prune-bench {version('coreml-prune-bench')}: please report it with the lines "
            "above and the command"
        )
        return _NO
    return code


def _called(command: Callable[[], object]) -> int:
    try:
        with extras_named():
            command()
    except SystemExit as end:
        if isinstance(end.__context__, OSError):  # Typer takes every broken pipe for that of standard output
            raise end.__context__ from None
        if end.code == _SIGNALLED + signal.SIGINT:  # and Ctrl-C for its own
            raise KeyboardInterrupt from end
        return end.code if isinstance(end.code, int) else 0 if end.code is None else _NO
    return 0


class _Stop:
    """Makes of a signal to end an exception, so that what is half-written is removed. A second one ends at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._first_s = 0.0
        self._raised: Callable[[], object] = lambda: None

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Inside, signals are told; afterwards they do what they did before."""
        former: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # which alone may say what signals do
            for number in _STOPS:
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                    former[number] = signal.signal(number, self._told)
        try:
            yield
        finally:
            if self.number is None:
                for number, handler in former.items():
                    signal.signal(number, handler)
            else:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _told(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            if time.monotonic() - self._first_s >= _SAME_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        self.number, self._first_s = number, time.monotonic()
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, _LOOK_SECONDS, _LOOK_SECONDS)
        self._raise()

    def _look(self, number: int, frame: FrameType | None) -> None:
        """Libraries swallow what is raised while they call back. An exception that nobody holds any more is gone."""
        if self._raised() is None:
            self._raise()

    def _raise(self) -> NoReturn:
        error = _StoppedError()
        self._raised = weakref.ref(error)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame, which would hold it


class _StoppedError(KeyboardInterrupt):
    """A signal to end. As Ctrl-C raises it, for those who clean up then."""


@contextmanager
def _streams_watched() -> Iterator[None]:
    """Inside, what standard error does not take is lost and nothing else; what standard output does not take is raised.

    What an encoding has no characters for is written as escapes. A stream that is closed takes everything and keeps
    nothing: the work, and the exit code that tells of it, are what they are where somebody reads.
    """
    _fill_closed()
    former = sys.stdin, sys.stdout, sys.stderr
    with open(os.devnull, "r+", encoding="utf-8") as nowhere:
        output, errors = former[1] or nowhere, former[2] or nowhere

        def unwritable(error: OSError) -> None:
            _silence(output)
            raise _UnwritableError(error) from error

        for stream in (output, errors):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        sys.stdin = former[0] or nowhere
        sys.stdout = _Watched(output, unwritable)
        sys.stderr = _Watched(errors, lambda error: _silence(errors))
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = former


def _fill_closed() -> None:
    """Open what is closed of the system's standard streams, for processes below this one too.

    The next file that is opened would else be one of them, and what a library prints would be written into it.
    """
    for standard in range(3):
        try:
            os.fstat(standard)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free


class _Watched:
    """A stream of text. refused: told what the system says where it takes nothing more."""

    def __init__(self, stream: TextIO, refused: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._refused = refused

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._refused(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._refused(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _silence(stream: TextIO) -> None:
    """What is written to the stream from now on, and what is left to write of before, goes nowhere."""
    with suppress(OSError):  # it is no file, as in a test
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
