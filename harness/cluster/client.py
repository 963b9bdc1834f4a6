"""Cells measured on a cluster: each a task of Dask, keyed as its record; what comes back is written through the store.

Dask decides where a task runs, passes artifacts on between workers, and gives a task whose worker died to another one.
Nothing that matters is kept by it: a run that is started again measures what has no record.
"""

import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter, sleep
from typing import Any

from distributed import Client, Future, KilledWorker

from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.bench.run import Measured, RunOptions, failed, why_not
from coreml_prune_bench.cluster.asked import Asked
from coreml_prune_bench.cluster.dask_settings import ALLOWED_FAILURES
from coreml_prune_bench.cluster.parcel import pack, put
from coreml_prune_bench.cluster.tasks import Order, Part, Result, given, key_of_part, make, measure
from coreml_prune_bench.cluster.workers import Admission
from coreml_prune_bench.core.errors import BenchError, CellFailedError
from coreml_prune_bench.core.progress import Steps
from coreml_prune_bench.records.accuracy import Record

_LOOK_SECONDS = 1.0
_ASK_SECONDS = 0.05
_FIRST_WORKER_SECONDS = 30.0
"""A worker tells of itself soon after it has joined."""
_MOST_TASKS = 1_000
"""That the scheduler knows at a time, so that neither it nor this process grows with the suite."""
_FAILURES = ALLOWED_FAILURES + 1
_AT_ONCE = 10
"""Priority of what other cells wait for; larger numbers go first."""


@dataclass(frozen=True)
class HowOnCluster:
    """threads: of a step; None: as many as the worker has. task_limit_s: after which a task's worker is ended."""

    threads: int | None = None
    task_limit_s: float | None = None


@dataclass
class _Tried:
    """What was heard of a task. name: for people."""

    name: str
    machines: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    runs: bool = False

    @property
    def told(self) -> str:
        where = ", ".join(dict.fromkeys(self.machines)) or "no machine that said so"
        why = f" ({'; '.join(dict.fromkeys(self.ends))})" if self.ends else ""
        return f"its worker ended {_FAILURES} times: on {where}{why}"


@dataclass
class _Flying:
    cell: Cell
    task: str
    began_s: float
    parts: dict[Part, str]


class OnCluster:
    """Measures cells on the workers of `client`. cells: all of the suite, whose places workers know them by."""

    def __init__(self, client: Client, asked: Asked, cells: Sequence[Cell], how: HowOnCluster) -> None:
        self._client = client
        self._asked = asked
        self._places = {cell.key: place for place, cell in enumerate(cells)}
        self._how = how
        self._topic = f"run-{uuid.uuid4().hex[:12]}"
        self._tried: dict[str, _Tried] = {}
        self._done: SimpleQueue[Future] = SimpleQueue()
        self._parts: dict[str, Future] = {}
        self._part_names: dict[Future, str] = {}
        self._wanted: Counter[str] = Counter()
        self._flying: dict[Future, _Flying] = {}

    def __call__(self, cells: list[Cell], options: RunOptions, steps: Steps) -> Iterator[Measured]:
        """As `Measure` has it. Raises BenchError where no worker fits, and what a task raises for the user to mend."""
        if not cells:
            return
        self._client.subscribe_topic(self._topic, lambda event: self._hear(event[1], options, steps))
        admission = Admission(self._client, self._asked, self._topic, options.reporter)
        try:
            self._wait_for_one(admission, steps)
            gpu = self._wants_gpu(admission, options.training.device)
            waiting, looked_s = deque(cells), monotonic()
            for cell in cells:
                self._wanted.update(self._part_keys(cell).values())
            while waiting or self._flying:
                while waiting and len(self._flying) < _MOST_TASKS:
                    self._send(waiting.popleft(), options, gpu=gpu)
                with suppress(Empty):
                    landed = self._done.get(timeout=_LOOK_SECONDS)
                    if landed in self._flying:
                        yield self._landed(landed, options)
                    else:
                        self._keep_part(landed, options)
                if monotonic() - looked_s >= _LOOK_SECONDS:
                    looked_s = monotonic()
                    admission.look()
        finally:
            self._say_what_runs(options)  # Ctrl-C, also while a record is written, and what the user has to mend
            self._client.unsubscribe_topic(self._topic)
            self._client.cancel([*self._flying, *self._parts.values()])

    def _wait_for_one(self, admission: Admission, steps: Steps) -> None:
        """Until a worker fits. Raises BenchError where all that are there do not, or none is."""
        until_s = monotonic() + _FIRST_WORKER_SECONDS
        while not admission.fit:
            admission.look()
            if not admission.is_asking and admission.refused:
                raise BenchError(f"no worker fits: {' | '.join(dict.fromkeys(admission.refused.values()))}")
            if not admission.is_asking and monotonic() > until_s:
                raise BenchError("no worker is there: `cluster join` starts one")
            steps.update("waiting for workers", 0, 1)
            sleep(_ASK_SECONDS)

    @staticmethod
    def _wants_gpu(admission: Admission, device: str) -> bool:
        """Whether trainings go to workers with a GPU. Raises BenchError where one is asked for and none is there."""
        there = any("GPU" in one.resources for one in admission.there)
        if device.startswith("cuda") and not there:
            raise BenchError(f"--device {device}: no worker has a GPU (cluster join --as gpu)")
        return there and device != "cpu"

    # --- sending

    def _send(self, cell: Cell, options: RunOptions, *, gpu: bool) -> None:
        keys = self._part_keys(cell)
        needs: dict[Part, Future] = {}
        for part, key in keys.items():
            of = cell.dense if part == "package" else cell
            needs[part] = self._part(of, part, key, dict(needs), options, gpu=gpu)
        own = options.store.found(cell.build_key) if cell.config else None
        task = f"cell-{cell.key}"
        self._tried[task] = _Tried(cell.name)
        future = self._client.submit(
            measure,
            self._order(cell, task, cell.name, options),
            needs,
            pack(options.store, own) if own else None,
            key=task,
            resources=self._resources(cell, gpu=gpu and _trains(cell)),
            pure=False,
        )
        self._flying[future] = _Flying(cell, task, perf_counter(), keys)
        future.add_done_callback(self._done.put)

    def _part(
        self, cell: Cell, part: Part, key: str, needs: dict[Part, Future], options: RunOptions, *, gpu: bool
    ) -> Future:
        """What several cells need: from this store, or made by the first worker that is free.

        needs: what it is made of itself.
        """
        if key in self._parts:
            return self._parts[key]
        name, folder = f"{part}-{key}", options.store.found(key)
        self._tried[name] = tried = _Tried(f"{cell.subject.network.name}, {part}")
        future: Future
        if folder:
            future = self._client.submit(given, pack(options.store, folder), key=name, pure=False, priority=_AT_ONCE)
        else:
            future = self._client.submit(
                make,
                self._order(cell, name, tried.name, options),
                part,
                needs,
                key=name,
                resources=self._resources(cell, gpu=gpu and part == "network"),
                pure=False,
                priority=_AT_ONCE,
            )
            future.add_done_callback(self._done.put)
        self._parts[key] = future
        self._part_names[future] = key
        return future

    def _order(self, cell: Cell, task: str, name: str, options: RunOptions) -> Order:
        return Order(
            self._asked.tag,
            self._topic,
            task,
            self._places[cell.key],
            name,
            device=options.training.device,
            skip_bad_images=options.skip_bad_images,
            image_cache=options.image_cache,
            threads=self._how.threads,
            limit_s=self._how.task_limit_s,
        )

    def _resources(self, cell: Cell, *, gpu: bool) -> dict[str, float]:
        """Of what a task has to have. Core ML predicts on a Mac alone, and there one at a time."""
        kind = "ANE" if cell.evaluation.runtime == "coreml" else "GPU" if gpu else "CPU"
        return {self._asked.tag: 1, kind: 1}

    def _part_keys(self, cell: Cell) -> dict[Part, str]:
        """The artifacts that a cell needs, each after those that it needs itself."""
        keys: dict[Part, str] = {}
        if cell.subject.training is not None:
            keys["network"] = key_of_part(cell, "network")
        keys["package"] = key_of_part(cell.dense, "package")
        if cell.config and cell.config.allocation == "sensitivity":
            keys["sensitivity"] = key_of_part(cell, "sensitivity")
        return keys

    # --- hearing

    def _landed(self, future: Future, options: RunOptions) -> Measured:
        flew = self._flying.pop(future)
        cell = flew.cell
        try:
            record = self._received(cell, future, options)
        except BenchError:
            raise
        except KilledWorker as error:  # of the cell's own task, or of one that it waited for
            record = failed(cell, CellFailedError(self._tried.get(str(error.task), _Tried(cell.name)).told))
        except Exception as error:
            record = failed(cell, error)
        finally:
            self._let_go(flew.parts)
        tried = self._tried.pop(flew.task)
        where = tried.machines[-1] if tried.machines else None
        return Measured(cell, record, perf_counter() - flew.began_s, where=where)

    def _keep_part(self, future: Future, options: RunOptions) -> None:
        """Where it failed, so do the cells that wait for it."""
        key = self._part_names.get(future)
        if key is not None and future.status == "finished" and (parcel := future.result()) is not None:
            put(options.store, key, parcel)

    def _received(self, cell: Cell, future: Future, options: RunOptions) -> Record:
        if future.status in ("cancelled", "lost"):
            raise BenchError("the scheduler is gone; what was finished is kept, the same command goes on from there")
        result: Result = future.result()
        if result.package is not None:
            put(options.store, cell.build_key, result.package)
        return self._as_here(cell, Record.model_validate_json(result.record))

    def _as_here(self, cell: Cell, record: Record) -> Record:
        """With this side's keys and its name of the data, whose fingerprint is the worker's."""
        data = cell.subject.data
        if record.data.fingerprint != data.val.fingerprint:
            raise BenchError(
                f"{record.provenance.host} measured {cell.name} on other images: {record.data.fingerprint[:12]}, "
                f"expected {data.val.fingerprint[:12]}"
            )
        record = record.model_copy(
            update={
                "key": cell.key,
                "config_key": cell.config_key,
                "subject_key": cell.subject.key,
                "data": record.data.model_copy(
                    update={"spec": data.spec, "place": data.place, "revision": data.revision}
                ),
            }
        )
        if reason := why_not(cell, record):
            raise BenchError(f"what {record.provenance.host} returned for {cell.name} {reason}")
        return record

    def _let_go(self, parts: dict[Part, str]) -> None:
        """Of artifacts that no cell waits for any more."""
        self._wanted.subtract(parts.values())
        for key in parts.values():
            if self._wanted[key] <= 0 and key in self._parts:
                future = self._parts.pop(key)
                self._part_names.pop(future)
                self._tried.pop(str(future.key))

    def _hear(self, told: dict[str, Any], options: RunOptions, steps: Steps) -> None:
        """An event of a task. Called by Dask, in its thread; some come after what they tell of has landed."""
        machine, kind = told["machine"], told["kind"]
        tried = self._tried.get(told["task"], _Tried(told["name"]))
        if kind == "start":
            tried.machines.append(machine)
            tried.runs = True
        elif kind == "done":
            tried.runs = False
        elif kind == "end":
            tried.ends.append(f"{machine}: {told['why']}")
            options.reporter.warn(f"{machine} starts anew: {told['name']}: {told['why']}")
        elif kind == "step":
            steps.update(f"{machine}: {told['description']}", told["done"], told["total"])
        else:
            options.reporter.say(f"{machine}: {told['line']}")

    def _say_what_runs(self, options: RunOptions) -> None:
        """Where this run ends before its cells do. Processes of this machine end with it."""
        if not self._flying or self._client.status != "running":
            return
        running = [f"{tried.name} on {tried.machines[-1]}" for tried in list(self._tried.values()) if tried.runs]
        then = "ended with this run" if self._client.cluster else "to its end runs"
        what = f"; {then} {', '.join(running)}" if running else ""
        options.reporter.say(f"what is queued is cancelled{what}")


def _trains(cell: Cell) -> bool:
    return cell.config is not None and "session" in cell.config.takes
