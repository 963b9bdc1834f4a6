"""A suite: which networks are pruned how, on which data. Read from TOML and checked before anything runs.

This module imports neither torch nor coremltools.
"""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator, model_validator

import coreml_prune_bench.models.networks  # registers the networks
import coreml_prune_bench.models.pruning  # noqa: F401  (registers the algorithms)
from coreml_prune_bench.bench.app import App
from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.bench.formats.protocol import get_format
from coreml_prune_bench.core.errors import BenchError, SuiteError, did_you_mean
from coreml_prune_bench.core.problems import in_one_line, problems_of
from coreml_prune_bench.core.written_files import read_toml, read_yaml
from coreml_prune_bench.data.halves import with_limit
from coreml_prune_bench.models.config import Distillation, Scope, TrainingConfig
from coreml_prune_bench.models.own import in_folder, is_spec
from coreml_prune_bench.models.paths import expanded
from coreml_prune_bench.models.preprocessing import Preprocessing
from coreml_prune_bench.models.pruning.algorithm import algorithms
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.registry import get_network

_SHIPPED = Path(__file__).parent / "suites"

DEFAULT_DATA = "default"


_MOST_NETWORKS, _MOST_CONFIGS = 500, 2_000
"""Of a suite: each network is pruned with each config, and somebody looks at the table."""


class Suite(BaseModel):
    """What a suite file says.

    cost: what running it takes, in words. packages: "published" for the packages of the published table as they are, in
    place of configs and all that is about building. weights: "pretrained", or "none" for networks that are
    trained from scratch. data: a data set for all networks ("default") and, by name, for single ones.
    image_size: side of what the networks take, in pixels; None: 224, or what the images have where that is smaller.
    preprocessing: how images are prepared and what numbers the networks take; None: as their weights' makers say, or
    as usual.
    training: how a network is trained that starts from scratch or gets another head; None where neither happens.
    trials: runs of each algorithm whose result depends on the order of the data.
    package_formats: what each pruned network is converted to, one or more.
    app: what an app reads in the packages, labels among it; None: nothing besides the program.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    cost: str = ""
    models: tuple[str, ...] = Field(min_length=1, max_length=_MOST_NETWORKS)
    weights: Literal["pretrained", "none"] = "pretrained"
    data: dict[str, str] = Field(default_factory=dict)
    image_size: int | None = Field(None, ge=32, le=1024)
    preprocessing: Preprocessing | None = None
    training: TrainingConfig | None = None
    trials: int = Field(3, ge=1)
    packages: Literal["published"] | None = None
    package_formats: tuple[str, ...] = Field((MLPACKAGE.name,), min_length=1)
    app: App | None = None
    configs: tuple[SerializeAsAny[PruningConfig], ...] = Field((), max_length=_MOST_CONFIGS)

    @field_validator("data", mode="before")
    @classmethod
    def _by_network(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f'expected a table, got {value!r}; write data.{DEFAULT_DATA} = "{value}"')
        return value

    @field_validator("package_formats")
    @classmethod
    def _known_formats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(dict.fromkeys(get_format(name).name for name in names))
        except SuiteError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _built_or_given(self) -> Self:
        if bool(self.configs) == bool(self.packages):
            raise ValueError('configs: give one or more [[configs]] tables, or packages = "published" in their place')
        if self.packages and self.package_formats != (MLPACKAGE.name,):
            raise ValueError("package_formats: published packages are .mlpackage as they are; leave it out")
        if self.packages and self.app:
            raise ValueError("app: published packages are measured as they are; `package save` writes such texts")
        for name in ("softmax", "image_sizes"):
            if "aimodel" in self.package_formats and getattr(self.app, name, None):
                raise ValueError(f"app.{name}: not of a .aimodel; leave it out, or .aimodel out of package_formats")
        if self.packages and self.image_size:
            raise ValueError("image_size: published packages take images of one size, and no other; leave it out")
        if self.preprocessing and self.preprocessing.layout:
            raise ValueError("preprocessing.layout: what is built takes images, which have none; leave it out")
        if self.preprocessing and self.packages and self.preprocessing.normalizes:
            raise ValueError("preprocessing: published packages take images and normalize them; leave out the numbers")
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


def cells_of(suite: Suite) -> int | None:
    """How many cells it has; None for published packages, which are counted when they are there."""
    if suite.packages:
        return None
    each = [
        len([model for model in suite.models if config.is_for(model)]) * (suite.trials if config.has_trials else 1)
        for config in suite.configs
    ]
    return len(suite.models) + sum(each)


def load_suite(name: str, *, keeping: Collection[str] | None = None) -> Suite:
    """The shipped suite called `name`, or the TOML file at that path. Raises SuiteError of one line.

    keeping: those of its networks that are not replaced, and have to be there; all if None.
    """
    path = expanded(name) if name.endswith(".toml") else _SHIPPED / f"{name}.toml"
    if not path.is_file():
        if name.endswith(".toml"):
            raise SuiteError(f"no suite {name!r}: no such file; docs/suites.md has one to begin with{_meant(name)}")
        raise SuiteError(
            f"no suite {name!r}: give one of {', '.join(shipped_suites())}, or the path of a .toml file{_meant(name)}"
        )
    try:
        content = read_toml(path)
    except ValueError as error:
        raise SuiteError(f"{path}: not TOML: {error}") from error
    tables = content.pop("configs", [])
    configs, problems = _read_configs(path.parent, tables)
    content["configs"] = configs
    _place_own_networks(content, path.parent)
    try:
        suite = Suite.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        # What is wrong with the suite as a whole cannot be told while some of its configs are not known.
        whole = not all(problem["loc"] for problem in error.errors())
        found = [] if problems and whole else problems_of(error, Suite, _known_key)
        raise SuiteError(f"{path}: {in_one_line([*found, *problems])}") from error
    if suite.app:
        suite = suite.model_copy(update={"app": suite.app.in_folder(path.parent)})
    for model in (*suite.models, *(key for key in suite.data if key != DEFAULT_DATA)):
        if keeping is not None and model not in keeping:
            continue
        try:
            get_network(model)
        except BenchError as error:
            problems.append(str(error))
    if problems:
        raise SuiteError(f"{path}: {in_one_line(problems)}")
    return suite


def choose(
    suite: Suite,
    *,
    models: list[str] | None = None,
    own: list[str] | None = None,
    algorithms: list[str] | None = None,
    trials: int | None = None,
    data: list[str] | None = None,
    package_formats: list[str] | None = None,
    limit: int | None = None,
) -> Suite:
    """The suite with what the command line says instead: some of its networks or algorithms, other trials or data.

    `data` holds "SPEC", which replaces the suite's default, and "NETWORK=SPEC", for one network. What the suite names
    for one network stays unless that network is named here. `own` are specs of networks (`--model`), in place of the
    suite's; `models` names those of the suite that stay beside them. limit: so many of each data set's val images.
    """
    for given, known, what in (
        (models, list(suite.models), "networks"),
        (algorithms, list(dict.fromkeys(config.algorithm for config in suite.configs)), "algorithms"),
    ):
        for name in given or ():
            if name not in known:
                has = ", ".join(known) or "none"
                raise SuiteError(
                    f"suite {suite.name} has no {name!r} among its {what}: {has}{did_you_mean(name, known)}"
                )
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
        changes["data"] = {**suite.data, **_data_given(networks, data)}
    if package_formats:
        changes["package_formats"] = tuple(dict.fromkeys(get_format(name).name for name in package_formats))
    if limit:
        changes["data"] = {name: with_limit(spec, limit) for name, spec in changes.get("data", suite.data).items()}
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


def _data_given(networks: tuple[str, ...], texts: list[str]) -> dict[str, str]:
    """The spec by network, or DEFAULT_DATA. Raises SuiteError where one is given two: one of them would not count."""
    found: dict[str, str] = {}
    for text in texts:
        network, spec = _read_data(networks, text)
        if network in found:
            whose = "; with NETWORK= it is of one network alone" if network == DEFAULT_DATA else f" for {network}"
            raise SuiteError(f"--data {text}: {found[network]} was given already{whose}")
        found[network] = spec
    return found


def _read_data(networks: tuple[str, ...], text: str) -> tuple[str, str]:
    network, separator, spec = text.partition("=")
    if separator and network in networks:
        return network, spec
    if separator and (is_spec(network) or ":" not in network) and not expanded(text).exists():
        near = did_you_mean(network, networks)
        raise SuiteError(f"--data {text}: no network {network!r} here, expected one of {', '.join(networks)}{near}")
    return DEFAULT_DATA, text


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


def _read_configs(folder: Path, tables: Any) -> tuple[tuple[PruningConfig, ...], list[str]]:
    """The configs of a suite in `folder`, those of its tables that are right, and what is wrong with the others."""
    if not isinstance(tables, list):
        return (), ["configs: expected one or more [[configs]] tables"]
    configs: list[PruningConfig] = []
    problems: list[str] = []
    for number, table in enumerate(tables, start=1):
        try:
            configs += _configs_of(folder, table)
        except ValidationError as error:
            known = _config_type(table)
            problems += [f"[[configs]] {number}: {one}" for one in problems_of(error, known, _known_key)]
        except SuiteError as error:
            problems.append(f"[[configs]] {number}: {error}")
    return tuple(configs), list(dict.fromkeys(problems))


def _configs_of(folder: Path, table: Any) -> list[PruningConfig]:
    """The configs of one table: a list of sparsities is short for as many. Raises SuiteError and ValidationError."""
    known = _config_type(table)
    table = _with_coremltools_yaml(folder, dict(table))
    sparsity = table.get("sparsity")
    if not isinstance(sparsity, list):
        return [known.model_validate(table)]
    if not sparsity:
        raise SuiteError("sparsity: the list is empty; give one or more")
    return [known.model_validate({**table, "sparsity": one}) for one in sparsity]


def _config_type(table: Any) -> type[PruningConfig]:
    if not isinstance(table, dict):
        raise SuiteError(f"expected a table, got {table!r}")
    known = {algorithm.name: algorithm.config for algorithm in algorithms()}
    name = str(table.get("algorithm"))
    if name not in known:
        raise SuiteError(
            f"algorithm: expected one of {', '.join(known)}, got {table.get('algorithm')!r}{did_you_mean(name, known)}"
        )
    return known[name]


def _with_coremltools_yaml(folder: Path, table: dict[str, Any]) -> dict[str, Any]:
    """Read the file that `coremltools_yaml` names, relative to the suite; it also names the config."""
    name = table.pop("coremltools_yaml", None)
    if name is None:
        return table
    file = folder / expanded(str(name))
    try:
        content = read_yaml(file)
    except OSError as error:
        raise SuiteError(f"coremltools_yaml: cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise SuiteError(f"coremltools_yaml: {file} is not YAML: {error}") from error
    return {"label": file.stem, **table, "coremltools": content}


def _meant(name: str) -> str:
    """What a suite's name may have been meant to be, as the end of a message."""
    if Path(name).is_file():
        return f"; {name} is a file whose name does not end in .toml"
    if not name.endswith(".toml"):
        return did_you_mean(name, shipped_suites())
    path = Path(name)
    if path.stem in shipped_suites():
        return f"; did you mean {path.stem!r}?"
    beside = [str(other) for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
    return did_you_mean(name, beside)


def _known_key(place: tuple[Any, ...]) -> str:
    """The nearest known key for an unknown one, as the end of a message."""
    key = str(place[-1])
    return did_you_mean(key, _known_keys() - {key})  # it may be known elsewhere


def _known_keys() -> set[str]:
    configs = [algorithm.config for algorithm in algorithms()]
    types: tuple[type[BaseModel], ...] = (Suite, Scope, TrainingConfig, Distillation, Preprocessing, *configs)
    return {key for config in types for key in config.model_fields} - {"coremltools"} | {"coremltools_yaml"}
