"""What workers do: see whether they fit a suite, make what several of its cells need, and measure a cell."""

import asyncio
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distributed import Status, Worker, get_worker

from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.bench.run import RunOptions, attempt
from coreml_prune_bench.bench.training_options import TrainingOptions
from coreml_prune_bench.cluster.asked import Question
from coreml_prune_bench.cluster.at_work import Teller, at_work
from coreml_prune_bench.cluster.parcel import Parcel, pack, put, send_to
from coreml_prune_bench.cluster.workplace import Workplace
from coreml_prune_bench.core.errors import BenchError

if TYPE_CHECKING:
    from coreml_prune_bench.bench.build.builder import Builder

Part = Literal["network", "sensitivity", "package"]
"""An artifact: of a cell's subject, its trained network and the sensitivities of its layers, and the cell's package."""

Wanted = Literal["record", "package", "sensitivity"]
"""Of a cell: its record, with the package that it is of; the package alone; or the sensitivities of its network."""

Levels = tuple[int, tuple[float, ...]]
"""How many training images sensitivities are measured on, and at which sparsities."""

LEAST_FREE_BYTES = 1 << 30
"""On a worker's disk. A package, its network and what converting them needs at a time are less."""


@dataclass(frozen=True)
class Order:
    """Which cell, by its place among those of the suite, and how.

    tag: of the suite. topic: under which the client listens. task: its key in Dask. name: for people. device,
    checkpoint_minutes, skip_bad_images, image_cache: as the options. threads: a step's; None for all that the worker
    has. limit_s: of the task. levels: of sensitivities; None for those that an allocation takes. address: of results,
    to which the cell's package goes, under `build_key`; None: to the client.
    """

    tag: str
    topic: str
    task: str
    position: int
    name: str
    device: str = "auto"
    checkpoint_minutes: float = 10
    skip_bad_images: bool = False
    image_cache: bool = True
    threads: int | None = None
    limit_s: float | None = None
    levels: Levels | None = None
    address: str | None = None
    build_key: str = ""


@dataclass(frozen=True)
class Result:
    """record: a cell's, as JSON, if that was wanted. made: its package, or what else was wanted; None where it had been
    given, is a dense package, which others need, too, or went to the results' address. seconds: it took."""

    record: bytes | None
    made: Parcel | None
    seconds: float

    def __sizeof__(self) -> int:
        """As of a parcel."""
        return object.__sizeof__(self) + len(self.record or b"") + (self.made.__sizeof__() if self.made else 0)


def fits(asked: Question, topic: str) -> str | None:
    """See whether this worker has what is asked for, and tag it if so; else why not."""
    with at_work(topic, asked.tag, "reading its data", None) as (place, teller):
        assert place.scratch is not None, "set up"
        if lacks := lacks_room(place.scratch.parent):
            return lacks
        try:
            found, differences = asked.look(place, teller)
        except BenchError as error:
            return str(error)
        if differences:
            return "; ".join(differences)
        place.remember(asked.tag, found)
        asyncio.run_coroutine_threadsafe(_tag(get_worker(), asked.tag), place.loop).result()
        return None


async def _tag(worker: Worker, tag: str) -> None:
    """Give this worker a resource, without which nothing of a suite runs on it."""
    await worker.set_resources(**{tag: 1})
    # The scheduler looks for tasks that wait for a worker like this one when it begins to run, not at a new resource.
    if worker.status is Status.running:
        worker.status = Status.paused
        worker.status = Status.running


def lacks_room(folder: Path) -> str | None:
    """Why a worker cannot work in this folder, if it cannot."""
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        return f"{folder} has {free / 1e6:,.0f} MB free, expected {LEAST_FREE_BYTES / 1e6:,.0f} or more"
    return None


def given(parcel: Parcel) -> Parcel:
    """An artifact that the client has: as a task, so that Dask hands it on, and again where a worker died."""
    return parcel


def make(order: Order, part: Part, needs: dict[Part, Parcel | None]) -> Parcel | None:
    """What several cells need, made once. None where a network is not trained but read from the worker's weights."""
    with at_work(order.topic, order.task, order.name, order.limit_s) as (place, teller):
        cell, options = ready(order, place, teller, needs)
        key = made_part(cell, part, options, order, teller)
        folder = options.store.found(key)
        return pack(options.store, folder) if folder else None


def measure(order: Order, wanted: Wanted, needs: dict[Part, Parcel | None], own: Parcel | None) -> Result:
    """What is wanted of a cell. own: its package, where it is built already."""
    began_s = time.perf_counter()
    with at_work(order.topic, order.task, order.name, order.limit_s) as (place, teller):
        cell, options = ready(order, place, teller, needs)
        store = options.store
        if own is not None:
            put(store, cell.build_key, own)
        record, key = None, cell.build_key
        if wanted == "record":
            with teller.steps("cells", 1) as steps:
                record = attempt(cell, options, steps).to_json().encode()
        else:
            key = made_part(cell, wanted, options, order, teller)
        is_here = (wanted != "sensitivity" and cell.config is None) or own is not None
        folder = store.found(key)
        made = pack(store, folder) if folder and not is_here else None
        if made and wanted != "sensitivity":
            made = sent(order, made, place, teller)
        if folder and cell.config:  # others need the dense one
            shutil.rmtree(folder)
        return Result(record, made, time.perf_counter() - began_s)


def sent(order: Order, package: Parcel, place: Workplace, teller: Teller) -> Parcel | None:
    """A package on its way to the client; None where it went to the results' address from here."""
    if order.address is None:
        return package
    assert place.scratch is not None, "set up"
    try:
        send_to(order.address, order.build_key, package, place.scratch.parent)
    except (BenchError, OSError) as error:
        teller.say(f"{error}; {order.name}: its package goes by way of the client")
        return package
    return None


def made_part(cell: Cell, part: Part, options: RunOptions, order: Order, teller: Teller) -> str:
    """Make an artifact in the worker's store; its key there."""
    builder = _builder(options, order, teller)
    if part == "package":
        builder.build(cell)
    elif part == "network":
        builder.train(cell.subject)
    elif order.levels is None:
        builder.sensitivity(cell.subject, synthetic=cell.takes_synthetic)
    else:
        builder.sensitivity(cell.subject, *order.levels)
    return key_of_part(cell, part, order.levels)


def ready(order: Order, place: Workplace, teller: Teller, needs: dict[Part, Parcel | None]) -> tuple[Cell, RunOptions]:
    """The cell, with what it needs in the worker's store, and the threads that it computes with."""
    import torch

    torch.set_num_threads(place.compute_on(order.threads))
    cell: Cell
    cell, store = place.remembered[order.tag][order.position], place.store
    for part, parcel in needs.items():
        if parcel is not None:
            put(store, key_of_part(cell.dense if part == "package" else cell, part), parcel)
    device = "cpu" if order.device == "auto" and place.kind == "cpu" else order.device
    training = TrainingOptions(device, order.checkpoint_minutes, teller.say)
    options = RunOptions(
        store, teller, skip_bad_images=order.skip_bad_images, image_cache=order.image_cache, training=training
    )
    return cell, options


def _builder(options: RunOptions, order: Order, teller: Teller) -> "Builder":
    from coreml_prune_bench.bench.build.builder import Builder

    with teller.steps("packages", 1) as steps:
        return Builder(
            options.store,
            lambda what, done, total: steps.update(f"{order.name}: {what}", done, total),
            skip_bad_images=options.skip_bad_images,
            training=options.training,
        )


def key_of_part(cell: Cell, part: Part, levels: Levels | None = None) -> str:
    """The key of an artifact in the store of whoever has the cell. levels: of sensitivities."""
    if part == "package":
        return cell.build_key
    if part == "network":
        return cell.subject.dense_key
    from coreml_prune_bench.bench.sensitivity import sensitivity_key
    from coreml_prune_bench.models.pruning.sensitivity import LEVELS, SAMPLES

    return sensitivity_key(cell.subject, *(levels or (SAMPLES, LEVELS)), synthetic=cell.takes_synthetic)
