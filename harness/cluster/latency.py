"""Latency on a cluster's Macs: one session a Mac, a task that nothing runs beside, so that its rounds stay whole.

Packages go there, records come back. What the client has of their records goes along, so that a session measures what
has none, as on one machine.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client, Future, KilledWorker

from coreml_prune_bench.cluster.at_work import at_work
from coreml_prune_bench.cluster.connect import Where, connected
from coreml_prune_bench.cluster.parcel import Parcel, pack_folder
from coreml_prune_bench.cluster.versions import differences, versions
from coreml_prune_bench.cluster.workers import Seen, workers_of
from coreml_prune_bench.cluster.workplace import ANE
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter, Steps
from coreml_prune_bench.latency.awake import kept_awake
from coreml_prune_bench.latency.machines import this_machine
from coreml_prune_bench.latency.session import Outcome, Session
from coreml_prune_bench.latency.targets import Target
from coreml_prune_bench.latency.worker import Workers
from coreml_prune_bench.records.latency import (
    Besides,
    LatencyRecord,
    Protocol,
    read_latency_records,
    write_latency_record,
)


@dataclass(frozen=True)
class Asks:
    """What a session measures, and how, as the options of `latency`; paths of targets are the client's."""

    targets: tuple[Target, ...]
    protocol: Protocol
    seed: int
    again: bool
    besides: tuple[Besides, ...]
    limit_s: float
    concurrency: int


def session(
    asks: Asks, topic: str, task: str, packages: Mapping[str, Parcel], known: Mapping[str, str]
) -> tuple[list[str], int]:
    """On a Mac: measure. packages: by the client's path. known: records by file name.

    Returns the records of all targets, as JSON, and how many of them are new.
    """
    with at_work(topic, task, "latency", None) as (place, teller):
        assert place.scratch is not None, "set up"
        with TemporaryDirectory(dir=place.scratch.parent) as name:
            folder = Path(name)
            places = {path: folder / str(number) / Path(path).name for number, path in enumerate(packages)}
            for path, parcel in packages.items():
                parcel.unpack(places[path])
            (folder / "latency").mkdir()
            for file, content in known.items():
                (folder / "latency" / file).write_text(content)
            targets = [
                Target(places[str(one.path)], one.package, one.compute_units, one.batch_size) for one in asks.targets
            ]
            machine, open_runtime = this_machine("coreml")
            run = Session(machine, asks.protocol, folder, seed=asks.seed, again=asks.again, besides=asks.besides)
            with (
                kept_awake(),
                teller.steps("latency", len(targets)) as steps,
                Workers(open_runtime, limit_s=asks.limit_s, count=asks.concurrency) as workers,
            ):
                outcome = run.run(targets, workers, steps)
            return [record.to_json() for record in outcome.records], outcome.measured


def measure_on_macs(where: Where, asks: Asks, results: Path, reporter: Reporter) -> Outcome:
    """A session on each Mac of the cluster; their records are written into `results`. Raises BenchError without a Mac.

    A Mac that goes away costs its own session; what others measured is kept.
    """
    with connected(where) as client, reporter.steps("latency", len(asks.targets)) as steps:
        macs = _macs(client, reporter)
        topic = f"latency-{uuid.uuid4().hex[:12]}"
        client.subscribe_topic(topic, lambda event: _hear(event[1], reporter, steps))
        paths = dict.fromkeys(str(target.path) for target in asks.targets)
        packages = {path: pack_folder(Path(path), {}) for path in paths}
        known = {record.file_name: record.to_json() for record in read_latency_records(results)}
        sessions = {mac.machine: _send(client, mac.machine, asks, topic, packages, known) for mac in macs}
        records: list[LatencyRecord] = []
        measured, problems = 0, []
        try:
            for mac, future in sessions.items():
                try:
                    texts, new = future.result()
                except KilledWorker:
                    problems.append(f"the worker of {mac} ended three times")
                    continue
                measured += new
                for text in texts:
                    records.append(LatencyRecord.model_validate_json(text))
                    write_latency_record(results, records[-1])
        except KeyboardInterrupt:
            reporter.say(f"to its end runs the session on {', '.join(sessions)}")
            raise
        finally:
            client.unsubscribe_topic(topic)
            client.cancel(list(sessions.values()))
    if problems:
        raise BenchError(f"{'; '.join(problems)}; what others measured is kept")
    return Outcome(records, measured)


def _macs(client: Client, reporter: Reporter) -> list[Seen]:
    """Those that fit; a line for each that does not."""
    ours, fit = versions(), []
    for one in workers_of(client):
        if ANE in one.resources:
            if found := differences(one.versions, ours):
                reporter.warn(f"{one.machine} is left out: {found}")
            else:
                fit.append(one)
    if not fit:
        raise BenchError("no Mac in the cluster: `cluster join --as mac` on one")
    return fit


def _send(
    client: Client, mac: str, asks: Asks, topic: str, packages: Mapping[str, Parcel], known: Mapping[str, str]
) -> Future:
    task = f"{topic}-{mac}"
    # By its name, not its address, which is another one when its process was started anew.
    resources = {ANE: 1, f"machine {mac}": 1}
    return client.submit(session, asks, topic, task, packages, known, key=task, resources=resources, pure=False)


def _hear(told: dict[str, Any], reporter: Reporter, steps: Steps) -> None:
    if told["kind"] == "step":
        steps.update(f"{told['machine']}: {told['description']}", told["done"], told["total"])
    elif told["kind"] == "end":
        reporter.warn(f"{told['machine']} starts anew: {told['why']}")
    elif told["kind"] == "line":
        reporter.say(f"{told['machine']}: {told['line']}")
