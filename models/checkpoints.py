"""A training's state on disk, so that what was killed goes on where it was.

A checkpoint is the SHA-256 of what follows, then a file of torch's. It belongs to one key, which stands for everything
the training depends on; that of another key is none. It is written whole or not at all, and a damaged one is none
either: the training then starts again, which costs time and nothing else.
"""

import hashlib
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

State = dict[str, Any]
"""Tensors, numbers, strings, and lists and dicts of them."""

_LAYOUT = 1
"""Of the state that trainings keep. Checkpoints of another layout are none."""


@dataclass
class Checkpoint:
    """Where one training keeps its state, and how often. warn is told, in a line, of a damaged file."""

    path: Path
    key: str
    interval_s: float
    warn: Callable[[str], None]
    _saved_s: float = field(default_factory=time.monotonic, init=False)

    def load(self) -> State | None:
        """The state that was saved last; None if there is none."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        digest, data = content[: hashlib.sha256().digest_size], content[hashlib.sha256().digest_size :]
        if hashlib.sha256(data).digest() != digest:
            self.warn(f"{self.path} is a damaged checkpoint: ignored, and the training starts again")
            return None
        saved = unpack(data)
        return saved["state"] if (saved["layout"], saved["key"]) == (_LAYOUT, self.key) else None

    def is_due(self) -> bool:
        return time.monotonic() - self._saved_s >= self.interval_s

    def save(self, state: State) -> None:
        """Replace the file in one go."""
        data = pack({"layout": _LAYOUT, "key": self.key, "state": state})
        unfinished = self.path.with_name(f"{self.path.name}.tmp")
        try:
            with unfinished.open("wb") as file:
                file.write(hashlib.sha256(data).digest())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # else a power cut could leave a name without its content
            os.replace(unfinished, self.path)
        finally:
            unfinished.unlink(missing_ok=True)
        self._saved_s = time.monotonic()


def pack(state: State) -> bytes:
    """As torch saves it. Through memory, because torch turns a full disk into an error that does not say so."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack(data: bytes) -> State:
    """What was packed, its tensors on the CPU; nothing but data can come of it."""
    state: State = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


_STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]


class StopRequest:
    """SIGTERM, SIGHUP or Ctrl-C, held back until what is at hand is done."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._former: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self._signal is not None

    def obey(self) -> None:
        """Let the signal, if there was one, do what it does without us."""
        if (number := self._signal) is not None:
            self._signal = None
            signal.signal(number, self._former[number])
            signal.raise_signal(number)

    def hold(self) -> None:
        """From now on, signals are only noted."""
        for number in _STOPS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                self._former[number] = signal.signal(number, self._note)

    def release(self) -> None:
        """From now on they take effect, and one that was noted does so now."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self.obey()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt  # whoever presses Ctrl-C twice will not wait
        self._signal = number


@contextmanager
def signals_held_back() -> Iterator[StopRequest]:
    """Inside, SIGTERM and Ctrl-C wait; afterwards they take effect."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # which alone may say what signals do
        yield request
        return
    request.hold()
    try:
        yield request
    finally:
        request.release()
