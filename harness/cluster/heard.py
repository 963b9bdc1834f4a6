"""What is heard of tasks while they run: on which machine each is, how often its worker ended, and why."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from distributed import Client

from coreml_prune_bench.cluster.dask_settings import ALLOWED_FAILURES
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.progress import Reporter, Steps

_FAILURES = ALLOWED_FAILURES + 1


@dataclass
class Tried:
    """What was heard of a task. name: for people."""

    name: str
    machines: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    runs: bool = False

    @property
    def machine(self) -> str | None:
        """The last one that worked on it."""
        return self.machines[-1] if self.machines else None

    @property
    def why_it_failed(self) -> str:
        """Where Dask gave it up."""
        where = ", ".join(dict.fromkeys(self.machines)) or "no machine that said so"
        why = f" ({'; '.join(dict.fromkeys(self.ends))})" if self.ends else ""
        return f"its worker ended {_FAILURES} times: on {where}{why}"


class Heard:
    """Listens to a run's tasks, whose events come under `topic`, and tells people what they have to know."""

    def __init__(self, topic: str, reporter: Reporter, steps: Steps) -> None:
        self.topic = topic
        self._reporter = reporter
        self._steps = steps
        self._tried: dict[str, Tried] = {}
        self.stop: Exception | None = None
        """Why the run has to end, as who watches its steps says: it cannot be raised in Dask's thread."""

    def expect(self, task: str, name: str) -> None:
        """A task that is sent now."""
        self._tried[task] = Tried(name)

    def forget(self, task: str) -> Tried:
        """One that has ended; what was heard of it."""
        return self._tried.pop(task)

    def of(self, task: str, name: str) -> Tried:
        return self._tried.get(task, Tried(name))

    def of_given_up(self, task: str, beside: Iterable[str], name: str) -> Tried:
        """A task that Dask gave up. It does so with what only waited at the workers that ended, too: then one of those
        `beside` it that was at work there, if there is one."""
        tried = self.of(task, name)
        at_work = [one for other in beside if (one := self.of(other, name)).runs]
        return at_work[0] if at_work and not tried.machines else tried

    @property
    def running(self) -> list[str]:
        """What workers work on, and where, for people."""
        return [f"{tried.name} on {tried.machine}" for tried in list(self._tried.values()) if tried.runs]

    def __call__(self, event: tuple[Any, dict[str, Any]]) -> None:
        """Called by Dask, in its thread; some events come after what they tell of has landed."""
        told = event[1]
        machine, kind = told["machine"], told["kind"]
        tried = self.of(told["task"], told["name"])
        if kind == "start":
            tried.machines.append(machine)
            tried.runs = True
        elif kind == "done":
            tried.runs = False
        elif kind == "end":
            tried.ends.append(f"{machine}: {told['why']}")
            self._reporter.warn(f"{machine} starts anew: {told['name']}: {told['why']}")
        elif kind == "step":
            try:
                self._steps.update(f"{machine}: {told['description']}", told["done"], told["total"])
            except BenchError as error:
                self.stop = error
        else:
            self._reporter.say(f"{machine}: {told['line']}")

    def say_what_runs(self, client: Client) -> None:
        """Where a run ends before its tasks do. Processes of this machine end with it."""
        then = "ended with this run" if client.cluster else "to its end runs"
        what = f"; {then} {', '.join(running)}" if (running := self.running) else ""
        self._reporter.say(f"what is queued is cancelled{what}")
