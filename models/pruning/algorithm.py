"""The pruning algorithms, by name. A new one is a folder here: a typed config, what prunes, and a descriptor.

What the rest of the project knows of an algorithm, it has from the descriptor and from its config: suites, `advise`,
help texts, keys, Core ML Tools' YAML. Descriptors and configs import no torch: what prunes is named by an entry, a
string, and is imported when it runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from coreml_prune_bench.models.errors import BenchError
from coreml_prune_bench.models.pruning.config import PruningConfig

if TYPE_CHECKING:
    from coreml_prune_bench.models.pruning.task import Pruned, PruningTask, Targets


@dataclass(frozen=True)
class Algorithm:
    """One way to prune a network.

    config: the type of its configs; its name in suites, its title and what it takes stand there.
    entry: "module:function", (config, task) -> Pruned. order: among the others, the cheapest first.
    trains_along: "module:function", (config, task), which torchrun's other processes call; for those that take labels.
    coremltools_yaml: "module:function", (config, targets, training images) -> (what to know of the file, its content).
    advised: what `advise` sets beside the sparsity and the storage form; None: it does not try this algorithm.
    """

    config: type[PruningConfig]
    entry: str
    order: int
    trains_along: str | None = None
    coremltools_yaml: str | None = None
    advised: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def name(self) -> str:
        """The identifier in suites and records, such as "sparse-gpt"."""
        return str(self.config.model_fields["algorithm"].default)

    @property
    def title(self) -> str:
        """The name in tables."""
        return self.config.title

    def train_along(self, config: PruningConfig, task: "PruningTask") -> None:
        """Take part, as one of torchrun's other processes, in what the first one prunes."""
        assert self.trains_along is not None, f"{self.name} is not trained by several processes"
        _loaded(self.trains_along)(config, task)

    def as_coremltools(
        self, config: PruningConfig, targets: "Targets", training_images: int
    ) -> tuple[str, dict[str, Any]]:
        """The config as Core ML Tools' own readers take it: what to know of the file, and what is in it."""
        if self.coremltools_yaml is None:
            raise BenchError(f"{self.title} has no counterpart in Core ML Tools, so no YAML says what it did")
        note, content = _loaded(self.coremltools_yaml)(config, targets, training_images)
        return note, content


_ALGORITHMS: dict[str, Algorithm] = {}


def register(algorithm: Algorithm) -> Algorithm:
    """Make `algorithm` known under its name. Raises ValueError if the name is taken."""
    if algorithm.name in _ALGORITHMS:
        raise ValueError(f"an algorithm named {algorithm.name!r} is registered already")
    _ALGORITHMS[algorithm.name] = algorithm
    return algorithm


def algorithms() -> list[Algorithm]:
    """Every algorithm that is known, the cheapest first."""
    return sorted(_ALGORITHMS.values(), key=lambda algorithm: algorithm.order)


def algorithm_of(config: PruningConfig) -> Algorithm:
    """The algorithm that a config is for."""
    return _ALGORITHMS[config.algorithm]


def prune(config: PruningConfig, task: "PruningTask") -> "Pruned":
    """Prune the task's network as `config` says. Raises BenchError for a config that cannot be used."""
    from coreml_prune_bench.models.conversion import zero_what_float16_loses
    from coreml_prune_bench.models.plain import spelt_out

    with spelt_out():  # algorithms look at the layers that are called
        zero_what_float16_loses(task.model, task.image_size)
        pruned: Pruned = _loaded(algorithm_of(config).entry)(config, task)
    return pruned


def _loaded(entry: str) -> Any:
    module, _, function = entry.partition(":")
    return getattr(import_module(module), function)
