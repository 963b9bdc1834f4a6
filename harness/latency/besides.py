"""What is measured of a row besides its latency: cold loads, waking up after idling, energy and memory.

What cannot be measured here is a note of the record, and the rest is measured.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from typing import Protocol as Typed

from coreml_prune_bench.latency.bench import Call
from coreml_prune_bench.latency.energy import WINDOW_SECONDS, WINDOWS
from coreml_prune_bench.latency.targets import Target
from coreml_prune_bench.latency.worker import Step, StepFailedError, VisitLostError
from coreml_prune_bench.records.latency import (
    IDLE_SECONDS,
    Besides,
    EnergyWindow,
    LatencyRecord,
    Memory,
    Protocol,
    Wake,
)

REPEATS = 3
"""Of each idling, and of cold loads."""

SECONDS: dict[Besides, float] = {
    "cold": REPEATS * 10.0,
    "wake": REPEATS * sum(IDLE_SECONDS),
    "energy": 2 * WINDOWS * WINDOW_SECONDS,
    "memory": 5.0,
}
"""What each takes of a row, about."""

_NOUNS: dict[Besides, str] = {"cold": "cold loads", "wake": "wake", "energy": "energy", "memory": "memory"}
_NOT_MEASURED = "no "
"""How such a note begins."""

_MOST_LOST = 5


class Asks(Typed):
    """What does the steps of `Bench`: worker processes, or in tests a bench in this process."""

    def ask(self, step: Step, *arguments: Any) -> list[Any]: ...
    def ask_alone(self, step: Step, *arguments: Any, cold: bool = False) -> Any: ...


@dataclass(frozen=True)
class Found:
    """The fields of a record by these names. notes: why what was asked for is not there."""

    cold_loads_ns: tuple[int, ...] = ()
    wake: tuple[Wake, ...] = ()
    energy: tuple[EnergyWindow, ...] = ()
    memory: Memory | None = None
    notes: tuple[str, ...] = ()

    @property
    def kinds(self) -> frozenset[Besides]:
        """What is there."""
        by_kind: dict[Besides, object] = {
            "cold": self.cold_loads_ns,
            "wake": self.wake,
            "energy": self.energy,
            "memory": self.memory,
        }
        return frozenset(kind for kind, value in by_kind.items() if value)


def found_in(record: LatencyRecord) -> Found:
    """What was measured before."""
    return Found(record.cold_loads_ns, record.wake, record.energy, record.memory)


def notes_of_rounds(record: LatencyRecord) -> tuple[str, ...]:
    """What its notes say of what is kept of it; what could not be measured besides is tried again."""
    return tuple(note for note in record.notes if not note.startswith(_NOT_MEASURED))


def measure(
    asked: Collection[Besides],
    before: Found,
    target: Target,
    protocol: Protocol,
    workers: Asks,
    progress: Callable[[str, int, int], None],
) -> Found:
    """What was asked for and is not there yet, added to what is. progress: what, how many are done, of how many."""
    found = before
    for kind in (kind for kind in _MEASURED if kind in asked and kind not in before.kinds):
        try:
            found = replace(found, **_MEASURED[kind](target, protocol, workers, partial(progress, kind)))
        except StepFailedError as error:
            found = replace(found, notes=(*found.notes, f"{_NOT_MEASURED}{_NOUNS[kind]}: {error}"))
    return found


_Progress = Callable[[int, int], None]
_T = TypeVar("_T")


def _counted(times: Sequence[_T], progress: _Progress) -> Iterator[_T]:
    for number, one in enumerate(times):
        progress(number, len(times))
        yield one


def _cold(target: Target, protocol: Protocol, workers: Asks, progress: _Progress) -> dict[str, Any]:
    loads = tuple(workers.ask_alone("load", target, cold=True) for _ in _counted(range(REPEATS), progress))
    return {"cold_loads_ns": loads}


def _wake(target: Target, protocol: Protocol, workers: Asks, progress: _Progress) -> dict[str, Any]:
    # In turns, so that what drifts hits all alike.
    calls: dict[float, list[Call]] = {idle_s: [] for idle_s in IDLE_SECONDS}
    for idle_s in _counted(IDLE_SECONDS * REPEATS, progress):
        calls[idle_s].append(_again_if_lost(workers, "wake", target, protocol, idle_s))
    return {"wake": tuple(_wake_after(idle_s, taken) for idle_s, taken in calls.items())}


def _wake_after(idle_s: float, calls: list[Call]) -> Wake:
    told = [call.model_ns for call in calls if call.model_ns is not None]
    return Wake(
        idle_s=idle_s,
        call_ns=tuple(call.call_ns for call in calls),
        model_ns=tuple(told) if len(told) == len(calls) else None,
    )


def _energy(target: Target, protocol: Protocol, workers: Asks, progress: _Progress) -> dict[str, Any]:
    return {
        "energy": tuple(_again_if_lost(workers, "energy", target, protocol) for _ in _counted(range(WINDOWS), progress))
    }


def _memory(target: Target, protocol: Protocol, workers: Asks, progress: _Progress) -> dict[str, Any]:
    progress(0, 1)
    return {"memory": workers.ask_alone("memory", target, protocol)}


_MEASURED: dict[Besides, Callable[[Target, Protocol, Asks, _Progress], dict[str, Any]]] = {
    "cold": _cold,
    "memory": _memory,
    "energy": _energy,
    "wake": _wake,
}


def _again_if_lost(workers: Asks, step: Step, *arguments: Any) -> Any:
    for _ in range(_MOST_LOST):
        try:
            return workers.ask(step, *arguments)[0]
        except VisitLostError as error:
            lost = error
    raise StepFailedError(f"{_MOST_LOST} times in turn: {lost}")
