"""What a run does while no worker can go on with it: it says so, once, and waits, as long as it was told to."""

from collections.abc import Collection, Sequence
from time import monotonic, sleep

from distributed import Client

from coreml_prune_bench.cluster.workers import Admission, Seen
from coreml_prune_bench.cluster.workplace import ANE, CPU, GPU
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter, Steps

GRACE_SECONDS = 10.0
"""A worker that is started anew is back by then, mostly."""

_ASK_SECONDS = 0.05
_JOINS_AS = {CPU: "cpu", GPU: "gpu", ANE: "mac"}


class Absence:
    """Of workers with a resource that steps need. address: of the scheduler; None where nobody can join.

    limit_s: after which a run that gets no further ends; None for never.
    """

    def __init__(self, address: str | None, limit_s: float | None, reporter: Reporter) -> None:
        self._address = address
        self._limit_s = limit_s
        self._reporter = reporter
        self._since_s: dict[str, float] = {}
        self._told: set[str] = set()

    @classmethod
    def seen_by(cls, client: Client, limit_s: float | None, reporter: Reporter) -> "Absence":
        """Of workers of this client's cluster; none can join one that it has started itself."""
        address = None if client.cluster else client.scheduler_info(n_workers=0)["address"]
        return cls(address, limit_s, reporter)

    def look(self, needed: Collection[str], fit: Sequence[Seen], there: Sequence[Seen], *, at_work: bool) -> None:
        """needed: resources of steps that have not ended. fit: workers that may work. at_work: something runs.

        Raises BenchError where nothing was there for longer than the limit, and nothing runs.
        """
        now_s = monotonic()
        missing = [name for name in needed if not any(name in one.resources for one in fit)]
        for name in [name for name in self._since_s if name not in missing]:
            del self._since_s[name]
            if name in self._told:
                self._told.remove(name)
                having = ", ".join(one.machine for one in fit if name in one.resources)
                self._reporter.say(f"goes on: {having} has {name}" if having else f"nothing waits for {name} any more")
        for name in missing:
            waited_s = now_s - self._since_s.setdefault(name, now_s)
            line = self._line(name, there)
            if self._limit_s is not None and waited_s >= self._limit_s and not at_work:
                raise BenchError(f"{line}; none within {self._limit_s:g} s (--wait-limit); what was finished is kept")
            if waited_s >= GRACE_SECONDS and name not in self._told:
                self._told.add(name)
                self._reporter.warn(f"{line}; waiting for one")

    def _line(self, name: str, there: Sequence[Seen]) -> str:
        others = ", ".join(f"{one.machine} ({_has(one)})" for one in there) or "none at all"
        join = f"; one joins by `coreml-prune-bench cluster join {self._address} --as {_JOINS_AS[name]}`"
        return f"no worker with {name} fits; there are: {others}{join if self._address else ''}"


def wait_for_one(admission: Admission, absence: Absence, kind: str, steps: Steps) -> None:
    """Until a worker fits. kind: the resource that the first step needs.

    Raises BenchError where all that are there do not fit, or none came within the limit.
    """
    while not admission.fit:
        admission.look()
        if not admission.fit and not admission.is_asking:
            if admission.refused:
                raise BenchError(f"no worker fits: {' | '.join(dict.fromkeys(admission.refused.values()))}")
            absence.look([kind], admission.fit, admission.there, at_work=False)
        steps.update("waiting for workers", 0, 1)
        sleep(_ASK_SECONDS)


def _has(one: Seen) -> str:
    return ", ".join(name for name in _JOINS_AS if name in one.resources)
