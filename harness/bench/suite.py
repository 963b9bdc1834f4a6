"""A suite: which networks are pruned how, on which data. Read from TOML and checked before anything runs.

This module imports neither torch nor coremltools.
"""

import tomllib
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

import coreml_prune_bench.models.networks
import coreml_prune_bench.models.pruning  # noqa: F401  (registers the algorithms)
from coreml_prune_bench.core.errors import SuiteError
from coreml_prune_bench.models.config import Distillation, Scope, TrainingConfig
from coreml_prune_bench.models.own import in_folder
from coreml_prune_bench.models.pruning.algorithm import algorithms
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.registry import get_network

_SHIPPED = Path(__file__).parent / "suites"

DEFAULT_DATA = "default"


class Suite(BaseModel):
    """What a suite file says.

    packages: "published" for the packages of the published table as they are, in place of configs and all that is
    about building. weights: "pretrained", or "none" for networks that are trained from scratch.
    data: a data set for all networks ("default") and, by name, for single ones.
    image_size: side of what the networks take, in pixels; None: 224, or what the images have where that is smaller.
    training: how a network is trained that starts from scratch or gets a new head; None where neither happens.
    trials: runs of each algorithm whose result depends on the order of the data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    models: tuple[str, ...] = Field(min_length=1)
    weights: Literal["pretrained", "none"] = "pretrained"
    data: dict[str, str] = Field(default_factory=dict)
    image_size: int | None = Field(None, ge=32, le=1024)
    training: TrainingConfig | None = None
    trials: int = Field(3, ge=1)
    packages: Literal["published"] | None = None
    configs: tuple[SerializeAsAny[PruningConfig], ...] = ()

    @model_validator(mode="after")
    def _built_or_given(self) -> Self:
        if bool(self.configs) == bool(self.packages):
            raise ValueError('configs: give one or more [[configs]] tables, or packages = "published" in their place')
        if self.packages and self.image_size:
            raise ValueError("image_size: published packages take images of one size, and no other; leave it out")
        return self

    @model_validator(mode="after")
    def _configs_are_for_its_models(self) -> Self:
        for number, config in enumerate(self.configs, start=1):
            for name in config.models or ():
                if name not in self.models:
                    raise ValueError(f"[[configs]] {number}: models: {name!r} is not among {', '.join(self.models)}")
        return self

    @model_validator(mode="after")
    def _tables_can_tell_them_apart(self) -> Self:
        """Of two rows with one name a table would show the newer alone."""
        for model in self.models:
            names = Counter((config.algorithm, config.name) for config in self.configs if config.is_for(model))
            for (algorithm, name), count in names.items():
                if count > 1:
                    raise ValueError(
                        f"{count} [[configs]] of {algorithm} for {model} would both be called {name!r} in tables: give "
                        "them a label each"
                    )
        return self

    def data_for(self, model: str) -> str:
        """The data set of one network. Raises SuiteError where the suite names none."""
        spec = self.data.get(model, self.data.get(DEFAULT_DATA))
        if spec is None:
            raise SuiteError(f"suite {self.name} names no data for {model}: give --data SPEC")
        return spec


def shipped_suites() -> list[str]:
    """The names of the suites that ship."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def load_suite(name: str) -> Suite:
    """The shipped suite called `name`, or the TOML file at that path. Raises SuiteError of one line."""
    path = Path(name) if name.endswith(".toml") else _SHIPPED / f"{name}.toml"
    if not path.is_file():
        raise SuiteError(f"no suite {name!r}: give one of {', '.join(shipped_suites())}, or the path of a .toml file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: not TOML: {error}") from error
    configs = content.pop("configs", [])
    if not isinstance(configs, list):
        raise SuiteError(f"{path}: configs: expected one or more [[configs]] tables")
    content["configs"] = tuple(_read_configs(path, configs))
    _place_own_networks(content, path.parent)
    try:
        suite = Suite.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        raise SuiteError(f"{path}: {_first_problem(error)}") from error
    for model in (*suite.models, *(key for key in suite.data if key != DEFAULT_DATA)):
        get_network(model)
    return suite


def choose(
    suite: Suite,
    *,
    models: list[str] | None = None,
    own: list[str] | None = None,
    algorithms: list[str] | None = None,
    trials: int | None = None,
    data: list[str] | None = None,
) -> Suite:
    """The suite with what the command line says instead: some of its networks or algorithms, other trials or data.

    `data` holds "SPEC", which replaces the suite's default, and "NETWORK=SPEC", for one network. What the suite names
    for one network stays unless that network is named here. `own` are specs of networks (`--model`), in place of the
    suite's; `models` names those of the suite that stay beside them.
    """
    for given, known, what in (
        (models, list(suite.models), "networks"),
        (algorithms, list(dict.fromkeys(config.algorithm for config in suite.configs)), "algorithms"),
    ):
        for name in given or ():
            if name not in known:
                raise SuiteError(f"suite {suite.name} has no {name!r} among its {what}: {', '.join(known) or 'none'}")
    changes: dict[str, Any] = {}
    if models or own:
        kept = [model for model in suite.models if model in (models or ())]
        changes["models"] = tuple(dict.fromkeys([*kept, *(get_network(spec).spec for spec in own or ())]))
    if algorithms:
        changes["configs"] = tuple(config for config in suite.configs if config.algorithm in algorithms)
    if trials:
        changes["trials"] = trials
    if data:
        networks = (*suite.models, *changes.get("models", ()))
        changes["data"] = {**suite.data, **dict(_read_data(networks, text) for text in data)}
    chosen = suite.model_copy(update=changes)
    for spec in own or ():
        if chosen.configs and not any(config.is_for(get_network(spec).spec) for config in chosen.configs):
            raise SuiteError(f"suite {suite.name}: {_for_others(chosen)}; give a suite of your own to prune {spec}")
    return chosen


def left_out(suite: Suite, own: list[str]) -> list[str]:
    """A line for each network of `own` (`--model`) that the suite has configs for, but not of all its algorithms."""
    lacking = {spec: _lacking(suite, spec) for spec in own}
    return [
        f"{spec} is not pruned by {', '.join(algorithms)}: in suite {suite.name}, {_for_others(suite)}"
        for spec, algorithms in lacking.items()
        if algorithms
    ]


def _lacking(suite: Suite, spec: str) -> list[str]:
    """The suite's algorithms that have no config for a network."""
    name = get_network(spec).spec
    has = {config.algorithm for config in suite.configs if config.is_for(name)}
    return [one for one in dict.fromkeys(config.algorithm for config in suite.configs) if one not in has]


def _for_others(suite: Suite) -> str:
    names = dict.fromkeys(name for config in suite.configs for name in config.models or ())
    return f"there are configs for {', '.join(names)} alone"


def _read_data(networks: tuple[str, ...], text: str) -> tuple[str, str]:
    network, separator, spec = text.partition("=")
    return (network, spec) if separator and network in networks else (DEFAULT_DATA, text)


def _place_own_networks(content: dict[str, Any], folder: Path) -> None:
    """Take the paths of networks that the user brings relative to the suite, in place."""
    models, data = content.get("models"), content.get("data")
    if isinstance(models, list):
        content["models"] = [in_folder(name, folder) if isinstance(name, str) else name for name in models]
    if isinstance(data, dict):
        content["data"] = {in_folder(name, folder): spec for name, spec in data.items()}
    content["configs"] = tuple(
        config if config.models is None
        else config.model_copy(update={"models": tuple(in_folder(name, folder) for name in config.models)})
        for config in content["configs"]
    )  # fmt: skip


def _read_configs(path: Path, tables: list[dict[str, Any]]) -> Iterator[PruningConfig]:
    known = {algorithm.name: algorithm for algorithm in algorithms()}
    for number, table in enumerate(tables, start=1):
        where = f"{path}: [[configs]] {number}"
        algorithm = known.get(str(table.get("algorithm")))
        if algorithm is None:
            raise SuiteError(f"{where}: algorithm: expected one of {', '.join(known)}, got {table.get('algorithm')!r}")
        table = _with_coremltools_yaml(path, where, dict(table))
        sparsity = table.get("sparsity")
        # A list of sparsities is short for as many tables.
        for one in sparsity if isinstance(sparsity, list) else [sparsity]:
            given = table if one is None else {**table, "sparsity": one}
            try:
                yield algorithm.config.model_validate(given)
            except ValidationError as error:
                raise SuiteError(f"{where}: {_first_problem(error)}") from error


def _with_coremltools_yaml(path: Path, where: str, table: dict[str, Any]) -> dict[str, Any]:
    """Read the file that `coremltools_yaml` names, relative to the suite; it also names the config."""
    name = table.pop("coremltools_yaml", None)
    if name is None:
        return table
    file = path.parent / str(name)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"{where}: coremltools_yaml: cannot read {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"{where}: coremltools_yaml: {file} is not YAML: {' '.join(str(error).split())}") from error
    return {"label": file.stem, **table, "coremltools": content}


def _first_problem(error: ValidationError) -> str:
    """One thing pydantic found, as "place: what is wrong", with the nearest known key for an unknown one."""
    # Unknown keys first: a misspelled key is also a missing one.
    problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg']}" if place else problem["msg"].removeprefix("Value error, ")
    key = str(problem["loc"][-1])
    close = get_close_matches(key, _known_keys() - {key}, n=1)  # known elsewhere, perhaps
    return f"unknown key {place!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def _known_keys() -> set[str]:
    configs = [algorithm.config for algorithm in algorithms()]
    types: tuple[type[BaseModel], ...] = (Suite, Scope, TrainingConfig, Distillation, *configs)
    return {key for config in types for key in config.model_fields} - {"coremltools"} | {"coremltools_yaml"}
