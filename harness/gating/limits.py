"""What a gate allows: a TOML file of limits, with overrides for models and cells."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from coreml_prune_bench.core.errors import BenchError, did_you_mean
from coreml_prune_bench.core.problems import in_one_line, problems_of
from coreml_prune_bench.core.written_files import read_toml
from coreml_prune_bench.gating.requirements import Requirement, parse

Verdict = Literal["better", "same", "worse", "cannot tell", "missing", "new", "not comparable"]
Metric = Literal[
    "accuracy", "size", "sparsity", "latency", "neural_engine", "load", "wake", "energy", "memory", "units"
]
Kind = Literal["accuracy", "latency"]

CHECKS: dict[Kind, tuple[Metric, ...]] = {
    "accuracy": ("accuracy", "size", "sparsity"),
    "latency": ("latency", "neural_engine", "load", "wake", "energy", "memory", "units"),
}
"""What is compared of each kind of row: the first is tested, the others are single values."""

Condition = Literal[
    "device",
    "os",
    "runtime",
    "precision",
    "compute units",
    "protocol",
    "low-power mode",
    "thermal state",
    "preprocessing",
]
"""What two measurements may differ in and yet be compared, if the rules say so. Images are not among it."""

_OVERRIDE = "override"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AccuracyRule(_Strict):
    """Percentage points of top-1. same_within: a difference shown to be smaller is none."""

    allowed_loss: float = Field(0.0, ge=0, lt=100)
    same_within: float = Field(1.0, gt=0, lt=100)


class SizeRule(_Strict):
    """Per cent of weight.bin."""

    allowed_percent: float = Field(1.0, ge=0)


class SparsityRule(_Strict):
    """Percentage points of whole-model sparsity."""

    allowed_points: float = Field(0.5, ge=0)


class LatencyRule(_Strict):
    """Per cent of the median latency; a difference shown to be smaller is none."""

    allowed_percent: float = Field(5.0, ge=0)


class NeuralEngineRule(_Strict):
    """Percentage points of the operations that are planned for the Neural Engine."""

    allowed_points: float = Field(0.0, ge=0)


class LoadRule(_Strict):
    """Per cent of the cached load time, or of the first one where there is no cache. Single values: no test is made."""

    allowed_percent: float = Field(50.0, ge=0)


class WakeRule(_Strict):
    """Per cent of the first prediction after 30 s of idling. A single value, as load time."""

    allowed_percent: float = Field(25.0, ge=0)


class EnergyRule(_Strict):
    """Per cent of the mJ that a prediction takes. A single value, as load time."""

    allowed_percent: float = Field(10.0, ge=0)


class MemoryRule(_Strict):
    """Per cent of the most memory that a process holds which predicts. A single value, as load time."""

    allowed_percent: float = Field(10.0, ge=0)


class UnitsRule(_Strict):
    """Percentage points of images that a unit has wrong, as `parity` tells them. A single value, as load time."""

    allowed_points: float = Field(5.0, ge=0)


class Rules(_Strict):
    """What holds for one row.

    alpha: the chance that a gate calls something worse though nothing changed, all rows together. fail: verdicts that
    make it fail. require: absolute rules, such as "top1 >= 75", of rows of the run. across: conditions that may differ.
    checks: what is compared; load, wake, energy and memory are not unless they are named here.
    """

    alpha: float = Field(0.05, gt=0, lt=0.5)
    fail: tuple[Verdict, ...] = ("worse", "missing")
    across: tuple[Condition, ...] = ()
    require: tuple[Requirement, ...] = ()
    checks: tuple[Metric, ...] = ("accuracy", "size", "sparsity", "latency", "neural_engine", "units")
    accuracy: AccuracyRule = AccuracyRule()
    size: SizeRule = SizeRule()
    sparsity: SparsityRule = SparsityRule()
    latency: LatencyRule = LatencyRule()
    neural_engine: NeuralEngineRule = NeuralEngineRule()
    load: LoadRule = LoadRule()
    wake: WakeRule = WakeRule()
    energy: EnergyRule = EnergyRule()
    memory: MemoryRule = MemoryRule()
    units: UnitsRule = UnitsRule()

    @field_validator("require", mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f'expected a list, got {value!r}; write require = ["{value}"]')
        try:
            # A rule said twice is one test, not two to correct for.
            return tuple(dict.fromkeys(parse(one) if isinstance(one, str) else one for one in value))
        except BenchError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, order=True)
class Key:
    """Which row: a cell (algorithm and config empty for a package that none made) and, of latencies, the compute units.

    context: what else tells rows of one folder apart that are of one cell, such as the data set or the device.
    """

    model: str
    algorithm: str = ""
    config: str = ""
    compute_units: str = ""
    context: str = ""

    @property
    def name(self) -> str:
        return ", ".join(part for part in (self.model, self.algorithm, self.config, self.place) if part)

    @property
    def place(self) -> str:
        """Compute units and context."""
        return ", ".join(part for part in (self.compute_units, self.context) if part)


_SELECTORS = ("model", "algorithm", "config", "compute_units")


@dataclass(frozen=True)
class _Override:
    """where: for messages. rows: values that a row must have. changes: to the rules, a part of them."""

    where: str
    rows: Mapping[str, str]
    changes: Mapping[str, Any]

    def applies_to(self, key: Key) -> bool:
        return all(getattr(key, name) == value for name, value in self.rows.items())


@dataclass(frozen=True)
class RuleSet:
    """A rules file: what holds for every row, and overrides, of which a later one goes before an earlier one."""

    base: Rules = field(default_factory=Rules)
    overrides: tuple[_Override, ...] = ()
    required: tuple[Requirement, ...] = ()
    """Besides, of every row, whatever overrides say: those of the command line."""

    def of(self, key: Key) -> Rules:
        """What holds for one row."""
        changes = [override.changes for override in self.overrides if override.applies_to(key)]
        rules = _changed(self.base, changes) if changes else self.base
        if not self.required:
            return rules
        return rules.model_copy(update={"require": tuple(dict.fromkeys((*rules.require, *self.required)))})

    @property
    def requires(self) -> bool:
        """Whether there is any absolute rule."""
        asked = (self.base.require, self.required, *(override.changes.get("require") for override in self.overrides))
        return any(asked)

    def requiring(self, texts: Iterable[str]) -> "RuleSet":
        """With absolute rules besides, for every row. Raises BenchError as `parse`."""
        return replace(self, required=(*self.required, *map(parse, texts)))

    def check_rows(self, keys: Iterable[Key]) -> None:
        """Raises BenchError for an override that applies to none of the rows, with the nearest name."""
        known = list(keys)
        for override in self.overrides:
            if not any(override.applies_to(key) for key in known):
                raise BenchError(f"{override.where}: {_no_such_row(override, known)}")


def read_rules(path: Path) -> RuleSet:
    """Read a rules file. Raises BenchError of one line that names file and key."""
    try:
        content = read_toml(path)
    except OSError as error:
        raise BenchError(f"cannot read the rules {path}: {error.strerror}") from error
    except ValueError as error:
        raise BenchError(f"{path}: not TOML: {error}") from error
    tables = content.pop(_OVERRIDE, [])
    problems: list[str] = []
    overrides: list[_Override] = []
    base = Rules()
    try:
        base = Rules.model_validate(content)
    except ValidationError as error:
        problems += problems_of(error, Rules, _known_key)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append(f"{_OVERRIDE}: expected one or more [[{_OVERRIDE}]] tables")
        tables = []
    for number, table in enumerate(tables, start=1):
        where = f"[[{_OVERRIDE}]] {number}"
        try:
            overrides.append(_read_override(f"{path}: {where}", table, base))
        except ValidationError as error:
            problems += [f"{where}: {one}" for one in problems_of(error, Rules, _known_key)]
        except BenchError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise BenchError(f"{path}: {in_one_line(problems)}")
    return RuleSet(base, tuple(overrides))


def _read_override(where: str, table: dict[str, Any], base: Rules) -> _Override:
    rows = {name: table.pop(name) for name in _SELECTORS if name in table}
    if not rows or not all(isinstance(value, str) for value in rows.values()):
        raise BenchError(f"name its rows by one or more of {', '.join(_SELECTORS)}, each a string")
    if "alpha" in table:
        raise BenchError(f"alpha: holds for all rows together; set it outside of [[{_OVERRIDE}]]")
    _changed(base, [table])
    return _Override(where, rows, table)


def _changed(base: Rules, changes: Iterable[Mapping[str, Any]]) -> Rules:
    content = base.model_dump()
    for change in changes:
        for name, value in change.items():
            merge = isinstance(value, dict) and isinstance(content.get(name), dict)
            content[name] = {**content[name], **value} if merge else value
    return Rules.model_validate(content)


def _no_such_row(override: _Override, keys: list[Key]) -> str:
    for name, value in override.rows.items():
        known = sorted({getattr(key, name) for key in keys} - {""})
        if value not in known:
            return f"no row has {name} {value!r}" + did_you_mean(value, known, however_far=True)
    wanted = ", ".join(override.rows.values())
    names = {", ".join(getattr(key, name) for name in override.rows) for key in keys}
    return f"no row is {wanted!r}" + did_you_mean(wanted, sorted(names), however_far=True)


def _known_key(place: tuple[Any, ...]) -> str:
    """The nearest key of the table in which an unknown one stands, as the end of a message."""
    table = Rules.model_fields.get(str(place[0]))
    rule = table.annotation if len(place) > 1 and table else Rules
    known = [*rule.model_fields] if isinstance(rule, type) and issubclass(rule, BaseModel) else []
    return did_you_mean(str(place[-1]), known, however_far=True)
