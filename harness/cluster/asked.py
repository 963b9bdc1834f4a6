"""What is asked of workers: a suite or images, and what of data, weights and versions has to be the same there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from coreml_prune_bench.accuracy.runtime import Evaluation
from coreml_prune_bench.bench.cells import Cell, Subject
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.cluster.versions import Versions
from coreml_prune_bench.cluster.workplace import Workplace
from coreml_prune_bench.core.keys import key_of
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.data import DataSet
from coreml_prune_bench.data.halves import open_data_or_part, same_part
from coreml_prune_bench.models.own import is_spec


@dataclass(frozen=True)
class Facts:
    """Of a network on its data: what both sides look at. train: None where nothing looks at training images."""

    network: str
    spec: str
    val: str
    train: str | None
    weights: str

    def differences(self, here: "Facts") -> Iterator[str]:
        """What of these, a worker's, is another than `here`."""
        for split in ("val", "train"):
            there, ours = getattr(self, split), getattr(here, split)
            if there != ours:
                yield (
                    f"{split} of {self.spec} has the fingerprint {_short(there)} there, and of {here.spec} "
                    f"{_short(ours)} here"
                )
        if self.weights != here.weights:
            yield f"weights of {self.network} are {_short(self.weights)} there and {_short(here.weights)} here"


class Question(Protocol):
    """What a client asks of workers before it sends them anything."""

    @property
    def versions(self) -> Versions: ...

    @property
    def tag(self) -> str:
        """Names what fits: workers that have this resource were seen to do so."""
        ...

    def look(self, place: Workplace, reporter: Reporter) -> tuple[Any, list[str]]:
        """On a worker: what its tasks find there, and what of it is another than here. Raises BenchError."""
        ...


@dataclass(frozen=True)
class Asked:
    """choice: the suite as it was chosen, loaded. cells: how many it has. keys: a hash of theirs."""

    choice: SuiteChoice
    evaluation: Evaluation
    versions: Versions
    facts: tuple[Facts, ...]
    cells: int

    @cached_property
    def tag(self) -> str:
        """As `Question` has it."""
        told = [list(vars(one).values()) for one in self.facts]
        suite = self.choice.suite
        named = suite if isinstance(suite, str) else suite.model_dump(mode="json", exclude={"data"})
        measured = [self.evaluation.runtime, self.evaluation.compute_units]
        of = {"suite": named, "facts": told, "versions": self.versions, "evaluation": measured}
        return f"fits-{key_of(of)[:12]}"

    def look(self, place: Workplace, reporter: Reporter) -> tuple[list[Cell], list[str]]:
        """As `Question` has it: the suite's cells."""
        cells = self.cells_at(place, reporter)
        return cells, self.differences(cells)

    def cells_at(self, place: Workplace, reporter: Reporter) -> list[Cell]:
        """The suite's cells with a worker's own data and weights, in the same order as here. Raises BenchError."""
        suite = self.choice.load()
        of = suite.data_for(suite.models[0])
        data = [same_part(spec, of) for spec in place.data] if place.data else None
        choice = replace(self.choice, data=data, weights=place.weights or self.choice.weights, limit=None)
        return choice.cells(reporter, self.evaluation)

    def differences(self, cells: Sequence[Cell]) -> list[str]:
        """What of a worker's cells is another than here."""
        there = facts_of(cells)
        if [one.network for one in there] != [one.network for one in self.facts] or len(cells) != self.cells:
            return [f"the suite has {len(cells)} cells there and {self.cells} here"]
        return [line for one, ours in zip(there, self.facts, strict=True) for line in one.differences(ours)]


@dataclass(frozen=True)
class AskedImages:
    """Of a data set's val split. spec: the client's. fingerprint: of the images."""

    spec: str
    fingerprint: str
    versions: Versions

    @cached_property
    def tag(self) -> str:
        """As `Question` has it."""
        return f"fits-{key_of({'images': self.fingerprint, 'versions': self.versions})[:12]}"

    def look(self, place: Workplace, reporter: Reporter) -> tuple[DataSet | None, list[str]]:
        """As `Question` has it: the data set. Of several that the worker was given, the one with these images."""
        found = []
        for spec in [same_part(_without_network(text), self.spec) for text in place.data or ()] or [self.spec]:
            data = open_data_or_part(spec)
            with reporter.steps(spec, 1) as steps:
                data.val.compute_fingerprint(steps.within(f"reading {data.val.name}"))
            if data.val.fingerprint == self.fingerprint:
                return data, []
            found.append(f"val of {spec} has the fingerprint {_short(data.val.fingerprint)} there")
        return None, [f"{', '.join(found)}, and of {self.spec} {_short(self.fingerprint)} here"]


def facts_of(cells: Sequence[Cell]) -> tuple[Facts, ...]:
    """Those of each subject, in the order of the cells."""
    subjects: dict[int, tuple[Subject, list[Cell]]] = {}
    for cell in cells:
        subjects.setdefault(id(cell.subject), (cell.subject, []))[1].append(cell)
    return tuple(_facts(subject, own) for subject, own in subjects.values())


def _facts(subject: Subject, cells: list[Cell]) -> Facts:
    trains = subject.training is not None or any(cell.config and cell.config.needs_data for cell in cells)
    return Facts(
        network=subject.network.name,
        spec=subject.data.spec,
        val=subject.data.val.fingerprint,
        train=subject.train_fingerprint if trains else None,
        weights=subject.weights_fingerprint,
    )


def _without_network(text: str) -> str:
    """The spec of `--data [NETWORK=]SPEC`."""
    network, separator, spec = text.partition("=")
    return spec if separator and (":" not in network or is_spec(network)) else text


def _short(fingerprint: str | None) -> str:
    return fingerprint[:12] if fingerprint else "none"
