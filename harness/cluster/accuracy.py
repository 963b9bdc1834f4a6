"""Accuracy of given packages, by the portable runtime of a cluster's workers, among which the images are divided.

Packages go there, predictions come back; each worker opens its own images. Every part of them is a task over all
packages, so that an image is decoded once, and a package comes to each worker once.
"""

import uuid
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from distributed import Client, Future, KilledWorker

from coreml_prune_bench.accuracy.class_labels import ClassMap
from coreml_prune_bench.accuracy.evaluate import evaluate, refuse_none
from coreml_prune_bench.cluster.absent import Absence, wait_for_one
from coreml_prune_bench.cluster.asked import AskedImages
from coreml_prune_bench.cluster.at_work import at_work
from coreml_prune_bench.cluster.client import HowOnCluster
from coreml_prune_bench.cluster.connect import Where, connected
from coreml_prune_bench.cluster.heard import Heard
from coreml_prune_bench.cluster.image_parts import in_words, joined, parts
from coreml_prune_bench.cluster.landing import Landed, Landing
from coreml_prune_bench.cluster.parcel import Parcel, pack_folder
from coreml_prune_bench.cluster.tasks import given
from coreml_prune_bench.cluster.versions import versions
from coreml_prune_bench.cluster.workers import Admission
from coreml_prune_bench.cluster.workplace import CPU
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter, Steps
from coreml_prune_bench.data import DataSet
from coreml_prune_bench.models.preprocessing import Preprocessing
from coreml_prune_bench.records.predictions import Precision, Predictions

_LOOK_SECONDS = 1.0
_Found = tuple[list[Predictions], tuple[str, ...]]
"""Each package's predictions for the images of a part, and which of them were skipped as bad."""


@dataclass(frozen=True)
class Asks:
    """How packages are evaluated, as the options of `accuracy` say; packages by the client's paths."""

    packages: tuple[Path, ...]
    asked: Preprocessing
    precision: Precision
    class_map: ClassMap | None
    output: str | None
    skip_bad_images: bool
    image_cache: bool


@dataclass(frozen=True)
class Outcome:
    """predictions: of each package, over all images. machines: that made them."""

    predictions: list[Predictions]
    skipped: tuple[str, ...]
    machines: tuple[str, ...]


def evaluate_part(
    asks: Asks, tag: str, topic: str, task: str, how: HowOnCluster, part: range, parcels: list[Parcel]
) -> _Found:
    """On a worker. parcels: the packages."""
    with at_work(topic, task, in_words(part), how.task_limit_s) as (place, teller):
        assert place.scratch is not None, "set up"
        place.compute_on(how.threads)
        with TemporaryDirectory(dir=place.scratch.parent) as name, teller.steps("accuracy", 1) as steps:
            here = [Path(name) / str(number) / package.name for number, package in enumerate(asks.packages)]
            for folder, parcel in zip(here, parcels, strict=True):
                parcel.unpack(folder)

            def named(text: str) -> str:
                for folder, package in zip(here, asks.packages, strict=True):
                    text = text.replace(str(folder), str(package))
                return text

            def say(line: str) -> None:
                if part.start == 0:  # what there is to tell is the same for all parts
                    teller.say(named(line))

            try:
                return evaluate(
                    here,
                    place.remembered[tag].val,
                    asks.asked,
                    precision=asks.precision,
                    class_map=asks.class_map,
                    output=asks.output,
                    skip_bad_images=asks.skip_bad_images,
                    image_cache=asks.image_cache,
                    part=part,
                    say=say,
                    tell=say,
                    progress=steps.update,
                )
            except BenchError as error:
                raise type(error)(named(str(error))) from None


def evaluate_on_cluster(where: Where, how: HowOnCluster, asks: Asks, data: DataSet, reporter: Reporter) -> Outcome:
    """As `evaluate` over data.val. Raises BenchError as that does, where no worker fits, and where one died thrice."""
    with reporter.steps(data.val.name, 1) as steps:
        data.val.compute_fingerprint(steps.within(f"reading {data.val.name}"))
    asked = AskedImages(data.spec, data.val.fingerprint, versions())
    topic = f"accuracy-{uuid.uuid4().hex[:12]}"
    with connected(where) as client:
        admission = Admission(client, asked, topic, reporter)
        absence = Absence.seen_by(client, how.wait_limit_s, reporter)
        with reporter.steps("workers", 1) as steps:
            wait_for_one(admission, absence, CPU, steps)
        workers = [one for one in admission.there if CPU in one.resources and one.address not in admission.refused]
        divided = parts(len(data.val), max(1, len(workers)))  # none of the kind yet: one may join
        with reporter.steps("parts of the images", len(divided)) as steps:
            heard = Heard(topic, reporter, steps)
            client.subscribe_topic(topic, heard)
            try:
                sent = _send(client, asks, how, asked.tag, topic, divided, heard)
                found, machines = _gather(sent, heard, steps, admission, absence)
            finally:
                if client.status == "running" and heard.running:
                    heard.say_what_runs(client)
                client.unsubscribe_topic(topic)
    return _together([found[part] for part in divided], data, machines)


def _send(
    client: Client, asks: Asks, how: HowOnCluster, tag: str, topic: str, divided: list[range], heard: Heard
) -> dict[Future, range]:
    """The tasks, and the part of each; those whose futures are let go are cancelled by Dask."""
    packages = [
        client.submit(given, pack_folder(path, {}), key=f"{topic}-package-{number}", pure=False)
        for number, path in enumerate(asks.packages)
    ]
    sent = {}
    for part in divided:
        task = f"{topic}-{part.start}"
        heard.expect(task, in_words(part))
        arguments = (asks, tag, topic, task, how, part, packages)
        resources = {tag: 1, CPU: 1}
        sent[client.submit(evaluate_part, *arguments, key=task, resources=resources, pure=False)] = part
    return sent


def _gather(
    sent: dict[Future, range], heard: Heard, steps: Steps, admission: Admission, absence: Absence
) -> tuple[dict[range, _Found], tuple[str, ...]]:
    """What was found in each part, and the machines that did."""
    landing = Landing()
    for future in sent:
        landing.watch(future)
    found: dict[range, _Found] = {}
    machines = set()
    while sent:
        if (ended := landing.next(_LOOK_SECONDS)) is not None:
            part = sent.pop(ended.future)
            found[part] = _received(ended, part, heard)
            machines.add(heard.forget(str(ended.future.key)).machine or "")
            steps.advance()
        if heard.stop is not None:
            raise heard.stop
        admission.look()
        absence.look([CPU] if sent else [], admission.fit, admission.there, at_work=bool(heard.running))
    return found, tuple(sorted(machines))


def _received(ended: Landed, part: range, heard: Heard) -> _Found:
    if ended.is_lost:
        raise BenchError("the scheduler is gone; nothing of this accuracy is kept")
    if isinstance(ended.error, KilledWorker):
        tried = heard.of(str(ended.error.task), in_words(part))
        raise BenchError(f"{in_words(part)}: {tried.why_it_failed}") from ended.error
    if ended.error is not None:
        raise ended.error
    found: _Found = ended.result
    return found


def _together(found: list[_Found], data: DataSet, machines: tuple[str, ...]) -> Outcome:
    """Parts in the order of the images."""
    every = [predictions for predictions, _ in found if predictions]
    refuse_none(every, data.val)
    predictions = [joined(of_all_parts) for of_all_parts in zip(*every, strict=True)]
    return Outcome(predictions, tuple(bad for _, skipped in found for bad in skipped), machines)
