"""The workers of a cluster as a client sees them: who is there, who fits its suite, and who does not and why."""

from dataclasses import dataclass
from typing import Any

from distributed import Client, Future, KilledWorker

from coreml_prune_bench.cluster.asked import Question
from coreml_prune_bench.cluster.tasks import fits
from coreml_prune_bench.cluster.versions import differences
from coreml_prune_bench.cluster.workplace import NAME
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter

_FIRST = 100
"""Priority of the question; larger numbers go first."""
_ANSWER_SECONDS = 10
"""For an answer that was given to come here."""


@dataclass(frozen=True)
class Seen:
    """A worker, as it tells of itself with each heartbeat. process: another one after it was started anew."""

    address: str
    machine: str
    kind: str
    versions: dict[str, str]
    resources: dict[str, float]
    doing: str
    cores: int
    sent_bytes: int
    process: str = ""

    @property
    def id(self) -> tuple[str, str]:
        return self.address, self.process


def workers_of(client: Client) -> list[Seen]:
    """Those that have told of themselves, by name. Others are none of ours, or have only just started."""
    found: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    seen = [
        Seen(
            address,
            **{name: told[name] for name in ("machine", "kind", "versions", "doing", "cores", "sent_bytes")},
            resources=dict(worker["resources"]),
            process=told.get("process", ""),  # not of a worker of earlier code
        )
        for address, worker in found.items()
        if (told := worker.get("metrics", {}).get(NAME))
    ]
    return sorted(seen, key=lambda one: (one.machine, one.address))


class Admission:
    """Asks each worker once, also those that come later, whether it fits; a line says why one does not.

    One that was started anew is a new one, also at the same address: it has forgotten what it was asked.
    """

    def __init__(self, client: Client, asked: Question, topic: str, reporter: Reporter) -> None:
        self._client = client
        self._asked = asked
        self._topic = topic
        self._reporter = reporter
        self._waiting: dict[Future, Seen] = {}
        self._known: set[tuple[str, str]] = set()
        self._fit: dict[tuple[str, str], Seen] = {}
        self.there: list[Seen] = []
        self.refused: dict[str, str] = {}

    def look(self) -> None:
        """Ask those that are new, and hear those that have answered. Raises BenchError for a bug in what they do."""
        self.there = workers_of(self._client)
        ids = {one.id for one in self.there}
        self._fit = {one.id: one for one in self.there if one.id in self._fit}
        self._known &= ids
        self._waiting = {future: one for future, one in self._waiting.items() if one.id in ids}
        for seen in self.there:
            if seen.id not in self._known:
                self._known.add(seen.id)
                self.refused.pop(seen.address, None)
                self._ask(seen)
        for future in [future for future in self._waiting if future.done()]:
            self._hear(self._waiting.pop(future), future)

    @property
    def fit(self) -> list[Seen]:
        """Those that may work now."""
        return list(self._fit.values())

    @property
    def is_asking(self) -> bool:
        """Whether a worker has not answered yet."""
        return bool(self._waiting)

    def _ask(self, seen: Seen) -> None:
        # Before any of our code runs there: another version of it may not even understand the question.
        if found := differences(seen.versions, self._asked.versions):
            self._refuse(seen, found)
            return
        key = f"{self._topic}-fits-{seen.address}-{seen.process}"
        future = self._client.submit(fits, self._asked, self._topic, workers=[seen.address], key=key, priority=_FIRST)
        self._waiting[future] = seen

    def _hear(self, seen: Seen, future: Future) -> None:
        if future.status == "finished":
            try:
                reason = future.result(timeout=_ANSWER_SECONDS)
            except TimeoutError:  # it has died with its answer; else it is asked again
                self._known.discard(seen.id)
                return
            if reason is None:
                self._fit[seen.id] = seen
            else:
                self._refuse(seen, reason)
        elif future.status == "error":
            error = future.exception()
            if isinstance(error, BenchError):
                self._refuse(seen, str(error))
            elif not isinstance(error, KilledWorker):
                raise error

    def _refuse(self, seen: Seen, reason: str) -> None:
        line = f"{seen.machine} is left out: {reason}"
        if line not in self.refused.values():
            self._reporter.warn(line)
        self.refused[seen.address] = line
