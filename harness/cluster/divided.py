"""One cell as many tasks: its package is built, parts of its images are evaluated where there is room, and a last task
makes the record of all.

The package goes from where it was built to each worker that evaluates a part; each opens its own images.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from distributed import Client, Future

from coreml_prune_bench.accuracy.evaluate import refuse_none
from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.bench.run import Evaluated, attempt, evaluate_cell
from coreml_prune_bench.cluster.at_work import at_work
from coreml_prune_bench.cluster.image_parts import in_words, joined
from coreml_prune_bench.cluster.parcel import Parcel, put
from coreml_prune_bench.cluster.tasks import Order, Result, ready, sent

Package = Parcel | Result
"""A cell's, as it was given, or as a worker built it."""


def send(
    client: Client,
    order: Order,
    parts: Sequence[range],
    built: Future,
    resources: dict[str, int],
    expect: Callable[[str, str], None],
) -> list[Future]:
    """The tasks of a cell whose package comes as `built`: one for each part of the images, and last that of its record.

    order: of the last one. resources: that a task needs. expect: told of each, its key and name, before it can begin.
    """

    def submit(function: Callable[..., object], own: Order, *arguments: object) -> Future:
        expect(own.task, own.name)
        return client.submit(function, own, built, *arguments, key=own.task, resources=resources, pure=False)

    orders = [
        replace(order, task=f"part of {order.task}-{part.start}", name=f"{order.name}, {in_words(part)}")
        for part in parts
    ]
    found = [submit(evaluate_part, own, part) for own, part in zip(orders, parts, strict=True)]
    return [*found, submit(record_of_all, order, found)]


def evaluate_part(order: Order, built: Package, part: range) -> Evaluated:
    """What the cell's package predicts for some images."""
    with at_work(order.topic, order.task, order.name, order.limit_s) as (place, teller):
        cell, options = ready(order, place, teller, {})
        assert place.scratch is not None, "set up"
        # A folder of its own: workers that share a store may be at other parts of the same package.
        with TemporaryDirectory(dir=place.scratch.parent) as name, teller.steps("cells", 1) as steps:
            folder = Path(name) / "package"
            _parcel(built).unpack(folder)
            return evaluate_cell(cell, folder / cell.package_name, options, steps, part)


def record_of_all(order: Order, built: Package, found: Sequence[Evaluated]) -> Result:
    """The record of a cell all of whose parts are evaluated, as `measure` gives it."""
    with at_work(order.topic, order.task, order.name, order.limit_s) as (place, teller):
        cell, options = ready(order, place, teller, {})
        folder = put(options.store, cell.build_key, _parcel(built))
        build_s = built.seconds if isinstance(built, Result) else None
        evaluated = _together(cell, found)
        with teller.steps("cells", 1) as steps:
            record = attempt(cell, options, steps, evaluated, build_s).to_json().encode()
        made = sent(order, _parcel(built), place, teller) if isinstance(built, Result) else None
        if cell.config:  # others need the dense one
            shutil.rmtree(folder)
        return Result(record, made, (build_s or 0.0) + evaluated.seconds)


def _parcel(built: Package) -> Parcel:
    parcel = built.made if isinstance(built, Result) else built
    assert parcel is not None, "a package was wanted, and none was given"
    return parcel


def _together(cell: Cell, found: Sequence[Evaluated]) -> Evaluated:
    """Of all images; seconds: of all workers."""
    predictions = [one.predictions for one in found if one.predictions]
    refuse_none(predictions, cell.subject.data.val)
    skipped = tuple(bad for one in found for bad in one.skipped)
    return Evaluated(joined(predictions), skipped, sum(one.seconds for one in found))
