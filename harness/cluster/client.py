"""Cells worked on by a cluster: each a task of Dask, keyed as its record; what comes back is written through the store.

Dask decides where a task runs, passes artifacts on between workers, and gives a task whose worker died to another one.
Nothing that matters is kept by it: a run that is started again measures what has no record.
"""

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic, perf_counter

from distributed import Client, Future, KilledWorker

from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.bench.run import Measured, RunOptions, failed, why_not
from coreml_prune_bench.cluster.absent import Absence, wait_for_one
from coreml_prune_bench.cluster.asked import Asked
from coreml_prune_bench.cluster.divided import send
from coreml_prune_bench.cluster.flying import Flying, Room
from coreml_prune_bench.cluster.heard import Heard
from coreml_prune_bench.cluster.image_parts import LARGEST_PART, parts_of_size
from coreml_prune_bench.cluster.landing import Landed, Landing
from coreml_prune_bench.cluster.order import Waiting
from coreml_prune_bench.cluster.parcel import Parcel, pack, put
from coreml_prune_bench.cluster.tasks import Levels, Order, Part, Result, Wanted, given, key_of_part, make, measure
from coreml_prune_bench.cluster.workers import Admission
from coreml_prune_bench.cluster.workplace import ANE, CPU, GPU
from coreml_prune_bench.core.errors import BenchError, CellFailedError
from coreml_prune_bench.core.progress import Steps
from coreml_prune_bench.records.accuracy import Record

_LOOK_SECONDS = 1.0
_PARTS_AT_ONCE = 64
"""Networks, dense packages and sensitivities that workers hold at a time."""
_AT_ONCE = 10
"""Priority of what other cells wait for; larger numbers go first."""


@dataclass(frozen=True)
class HowOnCluster:
    """threads: of a step; None: as many as the worker has. task_limit_s: after which a task's worker is ended.

    wait_limit_s: after which a run ends that no worker can go on with; None: never. part_images: in a task at most.
    """

    threads: int | None = None
    task_limit_s: float | None = None
    wait_limit_s: float | None = None
    part_images: int = LARGEST_PART


@dataclass(frozen=True)
class _Ended:
    """A cell that has ended: its record, if that was wanted, or why there is nothing. where: on which machine."""

    cell: Cell
    record: Record | None
    error: Exception | None
    seconds: float
    where: str | None


class OnCluster:
    """Works on cells, once, on the workers of `client`. cells: all of the suite, whose places workers know them by.

    levels: of sensitivities; None for those that an allocation takes.
    """

    def __init__(
        self, client: Client, asked: Asked, cells: Sequence[Cell], how: HowOnCluster, levels: Levels | None = None
    ) -> None:
        self._client = client
        self._asked = asked
        self._places = {cell.key: place for place, cell in enumerate(cells)}
        self._how = how
        self._levels = levels
        self._topic = f"run-{uuid.uuid4().hex[:12]}"
        self._landing = Landing()
        self._parts: dict[str, Future] = {}
        self._made: dict[Future, str] = {}
        self._left: dict[Future, str] = {}
        self._gpu = False
        self._wanted: Counter[str] = Counter()
        self._flying: dict[Future, Flying] = {}
        self._keys: dict[tuple[int, str, bool, bool], dict[Part, str]] = {}

    def __call__(self, cells: list[Cell], options: RunOptions, steps: Steps) -> Iterator[Measured]:
        """As `Measure` has it. Raises BenchError where no worker fits, and what a task raises for the user to mend."""
        for one in self._worked_on(cells, "record", options, steps):
            record = one.record or failed(one.cell, one.error or AssertionError("neither a record nor an error"))
            yield Measured(one.cell, record, one.seconds, where=one.where)

    def make(
        self, wanted: Wanted, cells: list[Cell], options: RunOptions, steps: Steps
    ) -> Iterator[tuple[Cell, Exception | None]]:
        """Have packages or sensitivities made and kept in the store; each cell as it ends, and why it has none.

        Raises as measuring does.
        """
        for one in self._worked_on(cells, wanted, options, steps):
            yield one.cell, one.error

    def _worked_on(self, cells: list[Cell], wanted: Wanted, options: RunOptions, steps: Steps) -> Iterator[_Ended]:
        if not cells:
            return
        self._heard = Heard(self._topic, options.reporter, steps)
        self._client.subscribe_topic(self._topic, self._heard)
        admission = Admission(self._client, self._asked, self._topic, options.reporter)
        absence = Absence.seen_by(self._client, self._how.wait_limit_s, options.reporter)
        try:
            kind = self._kind(cells[0], gpu=options.training.device.startswith("cuda"))
            wait_for_one(admission, absence, kind, steps)
            self._gpu = self._wants_gpu(admission, options.training.device)
            waiting, looked_s = Waiting(cells), monotonic()
            for cell in cells:
                self._wanted.update(self._part_keys(cell).values())
            while waiting or self._flying or self._left:
                self._send_those_that_may_go(waiting, wanted, admission, options)
                if (ended := self._landing.next(_LOOK_SECONDS)) is not None:
                    if ended.future in self._flying:
                        yield self._cell_of(ended, waiting, wanted, options)
                    else:
                        self._keep_part(ended, options)
                if self._heard.stop is not None:
                    raise self._heard.stop
                if monotonic() - looked_s >= _LOOK_SECONDS:
                    looked_s = monotonic()
                    admission.look()
                    at_work = bool(self._heard.running)
                    absence.look(self._needed(waiting), admission.fit, admission.there, at_work=at_work)
        finally:
            if self._flying and self._client.status == "running":
                self._heard.say_what_runs(self._client)  # Ctrl-C, also while a record is written, and what is to mend
            self._client.unsubscribe_topic(self._topic)
            before = [one for flew in self._flying.values() for one in flew.before]
            self._client.cancel([*self._flying, *before, *self._parts.values()])

    @staticmethod
    def _wants_gpu(admission: Admission, device: str) -> bool:
        """Whether trainings go to workers with a GPU, those that join later among them."""
        is_one_there = any(GPU in one.resources for one in admission.there if one.address not in admission.refused)
        return device.startswith("cuda") or (is_one_there and device != "cpu")

    def _needed(self, waiting: Waiting) -> list[str]:
        """The resources that steps need which have not ended."""
        cells = [*waiting.first, *(flew.cell for flew in self._flying.values())]
        kinds = dict.fromkeys(self._kind_of(cell) for cell in cells)
        if any(cell.subject.training and not self._is_made(cell, "network") for cell in cells):
            kinds[self._kind(cells[0], gpu=self._gpu)] = None
        return list(kinds)

    # --- sending

    def _send_those_that_may_go(
        self, waiting: Waiting, wanted: Wanted, admission: Admission, options: RunOptions
    ) -> None:
        """Cells whose network and dense package are there, as many of them as workers can take."""
        for cell in waiting.first:
            if len(self._parts) < _PARTS_AT_ONCE:
                self._send_parts(cell, options)
        room = Room(admission.fit, self._flying.values())

        def may_go(cell: Cell) -> bool:
            return room.has(self._kind_of(cell)) and all(
                key in self._parts and self._parts[key].done() for key in self._part_keys(cell).values()
            )

        while (next_ := waiting.take(may_go)) is not None:
            self._send(next_, wanted, options)
            room.take(self._kind_of(next_))

    def _send(self, cell: Cell, wanted: Wanted, options: RunOptions) -> None:
        order, kind, before = self._order(cell, _task_of(cell), cell.name, options), self._kind_of(cell), list[Future]()
        divided = parts_of_size(len(cell.subject.data.val), self._how.part_images)
        built: Future | None = None
        if wanted == "record" and cell.evaluation.runtime == "portable" and len(divided) > 1:
            built = self._built(cell, order, kind, options)
            *before, future = send(self._client, order, divided, built, self._resources(CPU), self._heard.expect)
            if cell.config:  # else others wait for it, too
                before.append(built)
        else:
            own = options.store.found(cell.build_key) if cell.config else None
            future = self._measured(cell, order, wanted, pack(options.store, own) if own else None, kind)
        tasks = [str(one.key) for one in (*before, future)]
        self._flying[future] = Flying(cell, tasks, perf_counter(), kind, before, built if cell.config else None)
        self._landing.watch(future)

    def _measured(self, cell: Cell, order: Order, wanted: Wanted, own: Parcel | None, kind: str) -> Future:
        needs = {part: self._parts[key] for part, key in self._part_keys(cell).items()}
        resources = self._resources(kind)
        self._heard.expect(order.task, order.name)
        return self._client.submit(measure, order, wanted, needs, own, key=order.task, resources=resources, pure=False)

    def _built(self, cell: Cell, order: Order, kind: str, options: RunOptions) -> Future:
        """The package of a cell, from a worker, from this store, or the dense one that others wait for, too."""
        if not cell.config:
            return self._parts[self._part_keys(cell)["package"]]
        task = f"package of {order.task}"
        if own := options.store.found(cell.build_key):
            self._heard.expect(task, cell.name)
            return self._client.submit(given, pack(options.store, own), key=task, pure=False)
        return self._measured(cell, replace(order, task=task, address=None), "package", None, kind)

    def _resources(self, kind: str) -> dict[str, int]:
        return {self._asked.tag: 1, kind: 1}

    def _send_parts(self, cell: Cell, options: RunOptions) -> None:
        """What a cell needs and others need, too, each part after those that it needs itself."""
        needs: dict[Part, Future] = {}
        for part, key in self._part_keys(cell).items():
            if key not in self._parts:
                of = cell.dense if part == "package" else cell
                self._parts[key] = self._part(of, part, key, dict(needs), options)
            needs[part] = self._parts[key]

    def _part(self, cell: Cell, part: Part, key: str, needs: dict[Part, Future], options: RunOptions) -> Future:
        """From this store, or made by the first worker that is free. needs: what it is made of itself."""
        task, name, folder = f"{part}-{key}", f"{cell.subject.network.name}, {part}", options.store.found(key)
        self._heard.expect(task, name)
        future: Future
        if folder:
            future = self._client.submit(given, pack(options.store, folder), key=task, pure=False, priority=_AT_ONCE)
        else:
            kind = self._kind(cell, gpu=self._gpu and part == "network")
            future = self._client.submit(
                make,
                self._order(cell, task, name, options),
                part,
                needs,
                key=task,
                resources=self._resources(kind),
                pure=False,
                priority=_AT_ONCE,
            )
            self._made[future] = key
        self._landing.watch(future, fetch=future in self._made)
        return future

    def _order(self, cell: Cell, task: str, name: str, options: RunOptions) -> Order:
        return Order(
            self._asked.tag,
            self._topic,
            task,
            self._places[cell.key],
            name,
            device=options.training.device,
            checkpoint_minutes=options.training.checkpoint_minutes,
            skip_bad_images=options.skip_bad_images,
            image_cache=options.image_cache,
            threads=self._how.threads,
            limit_s=self._how.task_limit_s,
            levels=self._levels,
            # Workers that this process has started are no nearer to it.
            address=None if self._client.cluster else options.store.address,
            build_key=cell.build_key,
        )

    def _kind_of(self, cell: Cell) -> str:
        """The resource that a cell's own step needs."""
        return self._kind(cell, gpu=self._gpu and _trains(cell))

    @staticmethod
    def _kind(cell: Cell, *, gpu: bool) -> str:
        """Core ML predicts on a Mac alone, and there one at a time."""
        return ANE if cell.evaluation.runtime == "coreml" else GPU if gpu else CPU

    def _is_made(self, cell: Cell, part: Part) -> bool:
        key = self._part_keys(cell).get(part)
        return key in self._parts and self._parts[key].done()

    def _part_keys(self, cell: Cell) -> dict[Part, str]:
        """The artifacts that a cell needs, each after those that it needs itself; told once for cells that share them.

        (To work one out asks which versions are installed, in more time than Dask needs for a task.)
        """
        allocates = cell.config is not None and cell.config.allocation == "sensitivity"
        shared = (id(cell.subject), cell.package_format.name, allocates, cell.takes_synthetic)
        if shared not in self._keys:
            keys: dict[Part, str] = {}
            if cell.subject.training is not None:
                keys["network"] = key_of_part(cell, "network")
            keys["package"] = key_of_part(cell.dense, "package")
            if allocates:
                keys["sensitivity"] = key_of_part(cell, "sensitivity")
            self._keys[shared] = keys
        return self._keys[shared]

    # --- what comes back

    def _cell_of(self, ended: Landed, waiting: Waiting, wanted: Wanted, options: RunOptions) -> _Ended:
        flew = self._flying.pop(ended.future)
        cell, seconds = flew.cell, perf_counter() - flew.began_s
        record: Record | None = None
        failure: Exception | None = None
        try:
            record, seconds = self._received(cell, ended, wanted, options)
            waiting.took(cell, seconds)
        except BenchError:
            raise
        except KilledWorker as error:  # of the cell's own task, or of one that it waited for
            failure = CellFailedError(self._heard.of_given_up(str(error.task), flew.tasks, cell.name).why_it_failed)
        except Exception as error:
            failure = error
        finally:
            if failure is not None and flew.built is not None and flew.built.status == "finished":
                self._save(flew.built, cell)
            for one in {*flew.before, ended.future} - self._left.keys():
                one.release()  # else Dask would do it again when the worker dies that has its result
            self._let_go(self._part_keys(cell))
        *_, last = [self._heard.forget(task) for task in flew.tasks]
        return _Ended(cell, record, failure, seconds, last.machine)

    def _save(self, built: Future, cell: Cell) -> None:
        """Fetch the package of a cell that failed afterwards: the next run need not build it."""
        self._left[built] = cell.build_key
        self._landing.watch(built)

    def _keep_part(self, ended: Landed, options: RunOptions) -> None:
        """Where it failed, so do the cells that wait for it."""
        key = self._made.get(ended.future) or self._left.pop(ended.future, None)
        made = ended.result.made if isinstance(ended.result, Result) else ended.result
        if key is not None and made is not None:
            put(options.store, key, made)

    def _received(self, cell: Cell, ended: Landed, wanted: Wanted, options: RunOptions) -> tuple[Record | None, float]:
        """Its record, if that was wanted, and the seconds that its worker took. Raises what its task did."""
        if ended.is_lost:
            raise BenchError("the scheduler is gone; what was finished is kept, the same command goes on from there")
        if ended.error is not None:
            raise ended.error
        result: Result = ended.result
        if result.made is not None:
            key = cell.build_key if wanted != "sensitivity" else key_of_part(cell, "sensitivity", self._levels)
            put(options.store, key, result.made)
        record = None if result.record is None else _as_here(cell, Record.model_validate_json(result.record))
        has_package = wanted != "sensitivity" and (record is None or record.package is not None)
        if result.made is None and cell.config and has_package and not options.store.is_kept(cell.build_key):
            raise BenchError(
                f"{cell.name}: its worker has put the package at {options.store.address}, where it is not: is that "
                "another place there?"
            )
        return record, result.seconds

    def _let_go(self, parts: dict[Part, str]) -> None:
        """Of artifacts that no cell waits for any more."""
        self._wanted.subtract(parts.values())
        for key in parts.values():
            if self._wanted[key] <= 0 and key in self._parts:
                future = self._parts.pop(key)
                self._made.pop(future, None)
                self._heard.forget(str(future.key))


def _as_here(cell: Cell, record: Record) -> Record:
    """With this side's keys and its name of the data, whose fingerprint is the worker's."""
    data = cell.subject.data
    if record.data.fingerprint != data.val.fingerprint:
        raise BenchError(
            f"{record.provenance.host} measured {cell.name} on other images: {record.data.fingerprint[:12]}, "
            f"expected {data.val.fingerprint[:12]}"
        )
    named = {"spec": data.spec, "place": data.place, "revision": data.revision}
    keys = {"key": cell.key, "config_key": cell.config_key, "subject_key": cell.subject.key}
    record = record.model_copy(update={**keys, "data": record.data.model_copy(update=named)})
    if reason := why_not(cell, record):
        raise BenchError(f"what {record.provenance.host} returned for {cell.name} {reason}")
    return record


def _task_of(cell: Cell) -> str:
    """Its key in Dask, which learns from what stands before the first dash how long such tasks take."""
    alike = f"{cell.subject.network.name}, {cell.algorithm}".replace("-", "_")
    return f"{alike}-{cell.key}"


def _trains(cell: Cell) -> bool:
    return cell.config is not None and "session" in cell.config.takes
