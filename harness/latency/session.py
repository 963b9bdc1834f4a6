"""Rounds over all targets, so that what drifts hits all alike, and a record of each.

Every round visits every target once, in an order shuffled by the seed; each second round takes the order of the round
before backwards. A drift that is linear over two such rounds then weighs on all targets alike (counterbalancing,
"ABBA"), and what is left of it is random. Each visit's samples are written at once, so a run that is stopped goes on
where it was.
"""

import random
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coreml_prune_bench.core.keys import key_of
from coreml_prune_bench.core.progress import Steps, warn
from coreml_prune_bench.latency.bench import Prepared, Visit
from coreml_prune_bench.latency.besides import Asks, Found, found_in, measure, notes_of_rounds
from coreml_prune_bench.latency.targets import Target
from coreml_prune_bench.latency.worker import StepFailedError, VisitLostError
from coreml_prune_bench.models.processors import cores
from coreml_prune_bench.records.accuracy import Runtime
from coreml_prune_bench.records.latency import (
    Besides,
    Device,
    LatencyRecord,
    Protocol,
    Round,
    State,
    latency_record_at,
    write_latency_record,
)
from coreml_prune_bench.records.provenance import provenance

COOL_DOWN_SECONDS = 600.0
"""How long a whole run may wait for the device to cool down; then it measures on, and the records show the state."""

_COOL_DOWN_STEP = 5.0
_MOST_LOST = 5
"""Visits of a row that may be thrown away because the machine slept."""


@dataclass(frozen=True)
class Machine:
    """What executes, as records name it. state: reads it at this moment. sleep: waits so many seconds.

    runtime: by the choice of compute units.
    """

    device: Device
    runtime: Callable[[str], Runtime]
    state: Callable[[], State]
    sleep: Callable[[float], None]


@dataclass
class _Row:
    """A target on its way to a record."""

    target: Target
    protocol: Protocol
    key: str
    runtime: Runtime
    prepared: Prepared | None = None
    rounds: list[Round] = field(default_factory=list)
    found: Found = field(default_factory=Found)
    reason: str | None = None
    earlier: LatencyRecord | None = None
    """The record of the run that took its first rounds, where this is not that one."""
    lost: int = 0


@dataclass(frozen=True)
class Outcome:
    """records: one a target, in their order. measured: how many of them are new."""

    records: list[LatencyRecord]
    measured: int

    @property
    def failed(self) -> list[LatencyRecord]:
        return [record for record in self.records if record.status == "failed"]


class Session:
    """One run. results: the folder of the records. seed: of the order of visits. again: measure what is measured.

    besides: what is measured of each row when its rounds are over.
    """

    def __init__(
        self,
        machine: Machine,
        protocol: Protocol,
        results: Path,
        *,
        seed: int = 0,
        again: bool = False,
        besides: Collection[Besides] = (),
    ) -> None:
        self._machine = machine
        self._protocol = protocol
        self._results = results
        self._seed = seed
        self._again = again
        self._besides = frozenset(besides)
        self._provenance = provenance()
        self._state: State | None = None
        self._cooled = 0.0

    def todo(self, targets: list[Target]) -> list[Target]:
        """Those that have no record of this protocol yet. A failed one is tried again."""
        return [target for target in targets if self._known(self._row(target)) is None]

    def run(self, targets: list[Target], workers: Asks, steps: Steps) -> Outcome:
        """Measure what is to be measured. A target that fails gets a failed record, and the others go on."""
        rows = [self._row(target) for target in targets]
        known = {row.key: record for row in rows if (record := self._known(row))}
        fresh = {row.key: row for row in rows if row.key not in known}
        for row in fresh.values():
            self._resume(row)
            self._attempt(row, self._prepare, workers, steps)
        for number in range(self._protocol.rounds):
            for row in self._order(list(fresh.values()), number):
                # A row that was resumed has some of its rounds already.
                if row.reason is None and len(row.rounds) <= number:
                    self._attempt(row, self._visit, workers, steps)
        for row in fresh.values() if self._besides else ():
            if row.reason is None:
                self._attempt(row, self._measure_besides, workers, steps)
        written = {key: self._record(row, reason=row.reason) for key, row in fresh.items()}
        return Outcome([known.get(row.key) or written[row.key] for row in rows], len(fresh))

    # --- one target

    def _row(self, target: Target) -> _Row:
        protocol = self._protocol.model_copy(update={"batch_size": target.batch_size})
        given = protocol.model_dump()
        if protocol.qos is None:
            del given["qos"]  # keys are those of before there was a choice
        runtime = self._machine.runtime(target.compute_units)
        inputs: dict[str, Any] = {
            "package": target.package.sha256,
            "device": self._machine.device.model_dump(),
            "runtime": runtime.model_dump(),
            "protocol": given,
        }
        if (threads := _threads(runtime)) is not None:
            inputs["threads"] = threads
        key = key_of(inputs)
        return _Row(target, protocol, key, runtime)

    def _attempt(self, row: _Row, step: Callable[[_Row, Asks, Steps], None], workers: Asks, steps: Steps) -> None:
        """Take the step; if it fails, that is the row's end and a record at once."""
        try:
            step(row, workers, steps)
        except StepFailedError as error:
            row.reason = str(error)
            self._state = None  # it may have taken minutes
            self._write(row)

    def _prepare(self, row: _Row, workers: Asks, steps: Steps) -> None:
        steps.update(f"{row.target.name}: compiling, loading, warming up", 0, 1)
        row.prepared = workers.ask("prepare", row.target, row.protocol)[0]
        steps.advance()

    def _visit(self, row: _Row, workers: Asks, steps: Steps) -> None:
        before = self._cool_down(steps)
        steps.update(f"{row.target.name}: round {len(row.rounds) + 1}", 0, 1)
        try:
            visit = _merged(workers.ask("visit", row.target, row.protocol))
        except VisitLostError as error:
            row.lost += 1
            warn(f"{row.target.name}: {error}; this visit is thrown away")
            self._state = None
            if row.lost > _MOST_LOST:
                raise StepFailedError(f"{row.lost} visits were thrown away: {error}") from error
            return self._visit(row, workers, steps)
        self._state = self._machine.state()
        row.rounds.append(
            Round(
                call_ns=visit.call_ns,
                model_ns=visit.model_ns,
                before=before,
                after=self._state,
                warm_up_ns=visit.warm_up_ns,
            )
        )
        if len(row.rounds) == self._protocol.rounds:
            self._write(row)
            if not self._besides:
                self._drop(row, workers)
        else:
            write_latency_record(self._unfinished, self._record(row, reason="not finished"))
        steps.advance()
        return None

    def _measure_besides(self, row: _Row, workers: Asks, steps: Steps) -> None:
        def progress(what: str, done: int, total: int) -> None:
            steps.update(f"{row.target.name}: {what}", done, total)

        row.found = measure(self._besides, row.found, row.target, row.protocol, workers, progress)
        self._write(row)
        self._drop(row, workers)
        steps.advance()

    @staticmethod
    def _drop(row: _Row, workers: Asks) -> None:
        with suppress(StepFailedError):  # what cannot be dropped has gone with its process
            workers.ask("drop", row.target)

    def _cool_down(self, steps: Steps) -> State:
        """Wait until the thermal state is nominal or unknown, as long as the run may; returns the state then."""
        state = self._state or self._machine.state()  # after the last visit is before this one
        while state.thermal not in (None, "nominal") and self._cooled < COOL_DOWN_SECONDS:
            steps.update(f"cooling down, thermal state {state.thermal}", round(self._cooled), round(COOL_DOWN_SECONDS))
            self._machine.sleep(_COOL_DOWN_STEP)
            self._cooled += _COOL_DOWN_STEP
            state = self._machine.state()
        return state

    def _order(self, rows: list[_Row], number: int) -> list[_Row]:
        # By key, so that the order does not depend on that of the command line.
        order = sorted(rows, key=lambda row: row.key)
        random.Random(f"{self._seed} {number // 2}").shuffle(order)
        return order[::-1] if number % 2 else order

    # --- records

    @property
    def _unfinished(self) -> Path:
        return self._results / "unfinished"

    def _known(self, row: _Row) -> LatencyRecord | None:
        if self._again:
            return None
        record = self._recorded(row, self._results)
        return record if record and self._besides <= found_in(record).kinds else None

    def _recorded(self, row: _Row, folder: Path) -> LatencyRecord | None:
        path = folder / "latency" / self._record(row, reason="not yet").file_name
        record = latency_record_at(path, row.key, warn)
        return record if record and (record.status == "measured" or folder == self._unfinished) else None

    def _resume(self, row: _Row) -> None:
        """The rounds that a stopped run took, or one that was asked for less besides."""
        if not self._again and (record := self._recorded(row, self._results)):
            row.found = found_in(record)
        else:
            record = self._recorded(row, self._unfinished)
        if record:
            row.rounds, row.earlier = list(record.rounds), record

    def _write(self, row: _Row) -> None:
        record = self._record(row, reason=row.reason)
        write_latency_record(self._results, record)
        (self._unfinished / "latency" / record.file_name).unlink(missing_ok=True)

    def _record(self, row: _Row, *, reason: str | None = None) -> LatencyRecord:
        known = row.prepared
        notes = [*(notes_of_rounds(row.earlier) if row.earlier else ()), *(known.notes if known else ())]
        provenance = row.earlier.provenance if row.earlier else self._provenance
        if row.lost:
            notes.append(f"{row.lost} visits were thrown away and made again: the machine slept meanwhile")
        if row.earlier and len(row.earlier.rounds) < self._protocol.rounds:
            notes.append("its rounds are of more than one run: the first was stopped")
        if known and not known.steady:
            notes.append(f"its warm-up was not steady after {len(known.warm_up_ns):,} calls")
        return LatencyRecord(
            status="failed" if reason else "measured",
            reason=reason,
            key=row.key,
            package=row.target.package,
            device=self._machine.device,
            runtime=row.runtime,
            protocol=row.protocol,
            provenance=provenance.model_copy(update={"predict_threads": _threads(row.runtime)}),
            compile_ns=known.compile_ns if known else None,
            cold_load_ns=known.cold_load_ns if known else None,
            cached_load_ns=known.cached_load_ns if known else None,
            warm_up_ns=known.warm_up_ns if known else (),
            rounds=tuple(row.rounds),
            placement=known.placement if known else None,
            qos=known.qos if known else None,
            cold_loads_ns=row.found.cold_loads_ns,
            wake=row.found.wake,
            energy=row.found.energy,
            memory=row.found.memory,
            seed=self._seed,
            notes=tuple(dict.fromkeys([*notes, *row.found.notes])),
        )


def _threads(runtime: Runtime) -> int | None:
    """Those of a prediction, which its time depends on; Core ML's are not known."""
    return cores() if runtime.name == "portable" else None


def _merged(visits: list[Visit]) -> Visit:
    """Of processes that predicted at the same time: their samples in turns."""
    told = [visit.model_ns for visit in visits if visit.model_ns is not None]
    return Visit(
        call_ns=_in_turns([visit.call_ns for visit in visits]),
        model_ns=_in_turns(told) if len(told) == len(visits) else None,
        warm_up_ns=_in_turns([visit.warm_up_ns for visit in visits]),
    )


def _in_turns(samples: list[tuple[int, ...]]) -> tuple[int, ...]:
    # In each sequence at its own pace: a process that predicted more is no later for it.
    ranked = [((i + 1) / len(one), place, value) for place, one in enumerate(samples) for i, value in enumerate(one)]
    return tuple(value for _, _, value in sorted(ranked))
