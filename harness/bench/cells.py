"""A suite laid out into cells: one (network, algorithm, config, trial) each, with the key of everything behind it.

Knowing which cells are measured already must be quick, so this module imports neither torch nor coremltools.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from coreml_prune_bench.accuracy.runtime import PORTABLE, Evaluation
from coreml_prune_bench.bench.app import AppContent, told_of
from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.bench.formats.protocol import PackageFormat, get_format
from coreml_prune_bench.bench.network_input import as_taken
from coreml_prune_bench.bench.sensitivity import SENSITIVITY_CODE, SYNTHETIC_CODE, synthetic_inputs
from coreml_prune_bench.bench.suite import Suite
from coreml_prune_bench.core.errors import DataError, SuiteError, WeightsError
from coreml_prune_bench.core.keys import code_behind, code_version, key_of, package_versions
from coreml_prune_bench.data import DataSet
from coreml_prune_bench.data.halves import from_any_folder, open_data_or_part
from coreml_prune_bench.models.config import TrainingConfig
from coreml_prune_bench.models.imagenet import IMAGENET_CLASSES
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning.algorithm import algorithm_of
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.registry import get_network
from coreml_prune_bench.models.weight_files import weights_fingerprint
from coreml_prune_bench.published.packages import PublishedPackage, published_packages

_BUILD_PACKAGES = ("torch", "torchvision", "numpy")
_DENSE_CODE = ("bench.build.dense",)
_NORMALIZING_CODE = ("models.normalization",)
_DENSE_PACKAGE_CODE = ("bench.build.saving",)
_PRUNED_CODE = ("bench.build.pruned", "models.pruning.algorithm")
_TRAINING_CODE = ("bench.training_images",)
_APP_CODE = ("bench.app_package",)
_ALLOCATION_CODE = (*SENSITIVITY_CODE, "models.pruning.allocation")

_MOST_CELLS = 100_000

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """One network on one data set: what its cells share.

    published: its packages are published ones and not built; the rest is about building.
    weights_folder: where pre-trained weights are; None to download them. pretrained: whether there are any.
    training: how the network is trained if it starts from scratch or gets another head.
    """

    suite: str
    network: Network
    data: DataSet
    published: bool
    pretrained: bool
    weights_folder: Path | None
    training: TrainingConfig | None

    @cached_property
    def dense_inputs(self) -> Inputs:
        """What the dense network depends on, its own code and packages left out."""
        inputs: Inputs = {
            "network": self.network.name,
            "weights": self.weights_fingerprint,
            "image_size": self.data.image_size,
            "classes": len(self.data.classes),
        }
        if changes := self.data.preprocessing.changes():
            inputs["preprocessing"] = changes
        if self.network.own is not None:
            inputs["sources"] = self.network.own.sources()
        if self.training is not None:
            inputs |= {"training": self.training.model_dump(), **self.train_inputs}
        return inputs

    @cached_property
    def dense_key(self) -> str:
        return key_of(
            {
                **self.dense_inputs,
                "code": code_version(*self.dense_code),
                "packages": package_versions(*_BUILD_PACKAGES),
            }
        )

    @property
    def dense_code(self) -> tuple[str, ...]:
        """The entry points of what makes the dense network; a network that the user brings has its sources besides."""
        code = (*_DENSE_CODE, "models.own" if self.network.own else self.network.build.__module__)
        return (*code, *_NORMALIZING_CODE) if self.data.preprocessing.normalizes else code

    @cached_property
    def key(self) -> str:
        """Shared by the records that may stand in one table side by side."""
        return key_of({**self.dense_inputs, "val_data": self.data.val.fingerprint})

    @cached_property
    def weights_fingerprint(self) -> str:
        if self.published:
            return "as published"
        return weights_fingerprint(self.network, self.weights_folder) if self.pretrained else "none"

    @property
    def view_inputs(self) -> Inputs:
        """What of the images is looked at, where that is not as usual."""
        changes = self.data.preprocessing.view.changes()
        return {"view": changes} if changes else {}

    @property
    def train_inputs(self) -> Inputs:
        """What a result depends on that has seen training images."""
        return {"train_data": self.train_fingerprint, "train_code": code_version(*_TRAINING_CODE)}

    @property
    def train_fingerprint(self) -> str:
        if self.data.train is None:
            raise DataError(
                f"{self.data.spec} has no train split, which {self.suite} needs: expected train/ beside val/"
            )
        return self.data.train.fingerprint


@dataclass(frozen=True)
class Cell:
    """One thing to build and to measure. config is None for the dense Float16 baseline.

    published: the package that is measured as it is, instead of one that is built; config is None then. row: among
    those of the suite, by which tables are ordered; None for a cell of its own.
    app: what its package holds for apps; None for the program alone.
    """

    subject: Subject
    config: PruningConfig | None
    trial: int
    published: PublishedPackage | None = None
    evaluation: Evaluation = PORTABLE
    package_format: PackageFormat = MLPACKAGE
    row: int | None = None
    app: AppContent | None = None

    @property
    def algorithm(self) -> str:
        if self.published and self.published.row.sparsity:
            return "published"
        return self.config.algorithm if self.config else "dense"

    @property
    def algorithm_title(self) -> str:
        """The algorithm in words."""
        if self.published:
            return self.published.title
        return self.config.title if self.config else "n/a"

    @property
    def config_name(self) -> str:
        """The config in words."""
        if self.published:
            return self.published.row.config
        return self.config.name if self.config else "Float16"

    @property
    def sparsity(self) -> float | None:
        """The fraction of zeros asked of each pruned layer; None where none was asked."""
        if self.published:
            return self.published.row.sparsity
        return self.config.target_sparsity if self.config else 0.0

    @property
    def name(self) -> str:
        """For progress and errors, such as "mobilenet_v2, SparseGPT, Unstructured Sparsity 50%, trial 2"."""
        network = self.subject.network.name
        if self.published:
            return f"{network}, {self.published.title}, {self.published.row.config}"
        form = "" if self.package_format is MLPACKAGE else f", {self.package_format.suffix}"
        if self.config is None:
            return f"{network}, dense{form}"
        trial = f", trial {self.trial + 1}" if self.config.has_trials else ""
        return f"{network}, {self.config.title}, {self.config.name}{trial}{form}"

    @property
    def record_name(self) -> str:
        """That its record lies under: readable, and different for every key."""
        return f"{self.record_stem}--{self.key[:12]}"

    @property
    def record_stem(self) -> str:
        """What the names of its record begin with, whatever its key was."""
        label = re.sub(r"[^a-z0-9]+", "-", self.config_name.lower()).strip("-")
        form = [] if self.package_format is MLPACKAGE else [self.package_format.name]
        return "--".join([self.subject.network.name, *form, self.algorithm, label[:60], f"trial{self.trial + 1}"])

    @cached_property
    def build_key(self) -> str:
        return key_of({**self._build_inputs, "trial": self.trial})

    @cached_property
    def key(self) -> str:
        return key_of({**self._record_inputs, "trial": self.trial})

    @cached_property
    def config_key(self) -> str:
        """Shared by the trials of one config."""
        return key_of(self._record_inputs)

    @property
    def dense(self) -> "Cell":
        """The dense baseline of this cell."""
        return Cell(self.subject, None, 0, evaluation=self.evaluation, package_format=self.package_format, app=self.app)

    @property
    def without_app(self) -> "Cell":
        """The cell whose package is the program alone, which this one's is made of."""
        return replace(self, app=None)

    @property
    def told(self) -> dict[str, str]:
        """What an app's package says of itself, by name; the pruned scope, known when it is built, left out."""
        network = self.subject.network
        return told_of(
            network.title,
            self.algorithm_title,
            self.config_name,
            self.sparsity,
            self.subject.weights_fingerprint if self.subject.pretrained else None,
        )

    @cached_property
    def pruned_key(self) -> str:
        """Shared by the cells whose packages hold one pruned network, in several formats."""
        return key_of({"start": self.start_key, "trial": self.trial})

    @cached_property
    def start_key(self) -> str:
        """Shared by the trials of a config, of whatever format: all that does not depend on the order of the data."""
        return key_of({"dense": self.subject.dense_key, **self._config_inputs})

    @property
    def package_name(self) -> str:
        return f"{self.subject.network.name}{self.package_format.suffix}"

    @property
    def takes_synthetic(self) -> bool:
        """Whether its network is pruned with images that nobody took."""
        return self.config is not None and self.config.takes_synthetic

    @property
    def build_code(self) -> tuple[str, ...]:
        """The entry points of what builds the package, those of the dense network among them."""
        if self.published:
            return ()
        if self.app:
            return (*self.without_app.build_code, *_APP_CODE)
        if self.config is None:
            return (*self.subject.dense_code, *_DENSE_PACKAGE_CODE, *self._format_code("save_dense"))
        code = (*self.subject.dense_code, *_PRUNED_CODE, *self._format_code("save_pruned"))
        code = (*code, algorithm_of(self.config).entry, type(self.config).__module__)
        if self.config.needs_data:
            code = (*code, *_TRAINING_CODE)
        elif self.config.takes_synthetic:
            code = (*code, *SYNTHETIC_CODE)
        return (*code, *_ALLOCATION_CODE) if self.config.allocation == "sensitivity" else code

    @property
    def code(self) -> dict[str, str]:
        """The hash of each module that the result depends on, as a record keeps it."""
        return code_behind(*self.build_code, *self.evaluation.code)

    def _format_code(self, save: str) -> tuple[str, ...]:
        kind = type(self.package_format)
        return tuple(f"{kind.__module__}:{kind.__qualname__}.{method}" for method in (save, "read", "check"))

    @cached_property
    def _build_inputs(self) -> Inputs:
        if self.published:
            return {"package": self.published.sha256}
        if self.app:
            made = {**self.app.inputs, "told": self.told, "code": code_version(*_APP_CODE)}
            return {"package": self.without_app._build_inputs, "app": made}
        inputs: Inputs = {
            "dense": self.subject.dense_key,
            "code": code_version(*self.build_code),
            "format": self.package_format.name,
            "packages": package_versions(*self.package_format.packages),
        }
        return inputs if self.config is None else inputs | self._config_inputs

    @property
    def _config_inputs(self) -> Inputs:
        assert self.config is not None, "the dense baseline has none"
        scope = self.config.scope or self.subject.network.scope
        inputs: Inputs = {"config": self.config.model_dump(exclude={"label", "models"}) | {"scope": scope.model_dump()}}
        if self.config.takes_synthetic:
            return inputs | {"images": synthetic_inputs()}
        return inputs | (self.subject.train_inputs if self.config.needs_data else {})

    @cached_property
    def _record_inputs(self) -> Inputs:
        return {
            "build": self._build_inputs,
            "val_data": self.subject.data.val.fingerprint,
            **self.evaluation.inputs,
            **self.subject.view_inputs,
        }


def lay_out(
    suite: Suite,
    weights_folder: Path | None,
    fingerprinting: Callable[[DataSet], None] = lambda data: None,
    evaluation: Evaluation = PORTABLE,
    package_formats: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Cell]:
    """The cells of a suite, each network's dense baselines first. Opens each data set once.

    package_formats: in place of the suite's. One config's packages of all formats stand side by side.

    Raises BenchError where a suite, its data, weights or published packages do not fit each other or are not there.

    fingerprinting is called with each data set before its content is hashed, to do so with a progress bar. say: told
    of networks that take images in another way than usual.
    """
    if weights_folder is not None and suite.weights == "none":
        raise WeightsError(f"suite {suite.name} trains its networks from scratch: leave out --weights")
    if weights_folder is not None and suite.packages:
        raise WeightsError(f"suite {suite.name} measures packages as they are: leave out --weights")
    if weights_folder is not None and not weights_folder.is_dir():
        if weights_folder.is_file():
            raise WeightsError(
                f"--weights {weights_folder} is a file, expected its folder; in it, a network's weights are NETWORK.pth"
            )
        raise WeightsError(f"no folder of weights at {weights_folder}")
    _check_names(suite)
    _check_count(suite)
    if not suite.packages:
        package_versions("torch")  # asked first: what opens data may lack an extra that comes with torch's
    formats = [get_format(name) for name in package_formats or suite.package_formats]
    opened: dict[str, DataSet] = {}
    cells: list[Cell] = []
    rows = count()
    for name in suite.models:
        spec = suite.data_for(name)
        one = from_any_folder(spec)  # however it is spelled
        if one not in opened:
            opened[one] = open_data_or_part(spec)
            fingerprinting(opened[one])
        network, data = as_taken(
            get_network(name),
            opened[one],
            pretrained=suite.weights == "pretrained" and not suite.packages,
            asked=suite.preprocessing,
            image_size=suite.image_size,
            say=say,
        )
        subject = Subject(
            suite=suite.name,
            network=network,
            data=data,
            published=suite.packages == "published",
            pretrained=suite.weights == "pretrained",
            weights_folder=weights_folder,
            training=suite.training,
        )
        if subject.published:
            if len(subject.data.classes) != IMAGENET_CLASSES:
                raise DataError(f"{spec} has {len(subject.data.classes)} classes; published packages know ImageNet's")
            packages = published_packages(name)
            cells += [Cell(subject, None, 0, package, evaluation, row=next(rows)) for package in packages]
            continue
        app = suite.app.content(data.classes) if suite.app else None
        dense = [
            Cell(subject, None, 0, evaluation=evaluation, package_format=one, row=next(rows), app=app)
            for one in formats
        ]
        cells += dense
        for config in suite.configs:
            if not config.is_for(name):
                continue
            firsts = [replace(baseline, config=config, row=next(rows)) for baseline in dense]
            trials = range(suite.trials if config.has_trials else 1)
            cells += [replace(first, trial=trial) for trial in trials for first in firsts]
    return cells


def _check_count(suite: Suite) -> None:
    """Raises SuiteError for more cells than anybody will measure."""
    each = [len(config.models or suite.models) * (suite.trials if config.has_trials else 1) for config in suite.configs]
    if sum(each) > _MOST_CELLS:
        raise SuiteError(
            f"suite {suite.name} has {sum(each):,} cells (networks x configs x trials), expected at most "
            f"{_MOST_CELLS:,}"
        )


def _check_names(suite: Suite) -> None:
    """Raises SuiteError where two networks have one name, under which their packages and records lie."""
    specs: dict[str, str] = {}
    for spec in suite.models:
        other = specs.setdefault(get_network(spec).name, spec)
        if other != spec:
            raise SuiteError(
                f"suite {suite.name}: {other} and {spec} are both named {get_network(spec).name}; rename one"
            )
