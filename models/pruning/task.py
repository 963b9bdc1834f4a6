"""What a pruning algorithm is given and what it returns, which layers it prunes, and Core ML Tools' own configs."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from cattrs import BaseValidationError, transform_error
from torch import nn

from coreml_prune_bench.models.checkpoints import State
from coreml_prune_bench.models.errors import BenchError
from coreml_prune_bench.models.heads import head_of
from coreml_prune_bench.models.layers import PrunableLayer, is_depthwise, layers_in_scope
from coreml_prune_bench.models.loading import Images, LabelledImages
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pattern import Pattern
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.training import Progress, Session

if TYPE_CHECKING:
    import coremltools as ct

Targets = dict[str, float | None]
"""The sparsity asked of each pruned layer, by its dotted name; None where only a threshold was given."""

_Own = TypeVar("_Own")
_Config = TypeVar("_Config", bound=PruningConfig)


@dataclass(frozen=True)
class PruningTask:
    """One network to prune once.

    model: the dense network in eval mode; the algorithm may change it.
    data: training images, for configs whose `needs_data` is true; or images that a config says to calibrate with.
    trial: changes the order of the training data and nothing else.
    session: how a fine-tuning runs, and where. say: told, in a line each, of what has been found out on the way.
    once: gives what the trials have in common, made by the function for the first of them; nobody may change it.
    """

    network: Network
    model: nn.Module
    image_size: int
    data: Images | None
    trial: int
    progress: Progress
    session: Session = field(default_factory=Session)
    say: Callable[[str], None] = lambda line: None
    once: Callable[[Callable[[], State]], State] = lambda make: make()

    @cached_property
    def head(self) -> tuple[str, ...]:
        """The layers whose outputs are the classes, by dotted name: first asked while the network is on the CPU."""
        return head_of(self.model, self.image_size, self.network.name).layers

    def training_data(self) -> LabelledImages:
        assert isinstance(self.data, LabelledImages), "an algorithm that learns from labels is given them"
        return self.data

    def calibration_data(self) -> Images:
        assert self.data is not None, "an algorithm that looks at images is given some"
        return self.data


@dataclass(frozen=True)
class Pruned:
    """A pruned network and what was promised of it: targets by layer, and the pruned scope in words.

    model: in eval mode, with its zeros; a package format converts it, and stores zeros of pruned layers as zeros.
    devices: those it was fitted on, in words. patterns: how the zeros of a layer stand, where that is not anywhere.
    prune_program: zeroes weights of the converted Core ML program, where that is how the algorithm works.
    """

    config: PruningConfig
    model: nn.Module
    image_size: int
    targets: Targets
    scope: str
    devices: tuple[str, ...] = ()
    patterns: Mapping[str, Pattern] = field(default_factory=dict)
    prune_program: "Callable[[ct.models.MLModel], ct.models.MLModel] | None" = None


def patterns_of(config: PruningConfig, targets: Targets) -> dict[str, Pattern]:
    """How the zeros of each pruned layer stand: as the config says, of every layer alike."""
    return {} if config.pattern is None else dict.fromkeys(targets, config.pattern)


def layer_sparsities(config: PruningConfig, network: Network, model: nn.Module) -> Targets:
    """What is asked of each layer that is pruned, by its dotted name: the one place where that is decided.

    Of the layers in scope, those that `config.layers` or the algorithm leaves dense are not listed.
    Raises BenchError of one line, with the fix, where a layer cannot take the config's pattern.
    """
    layers = _in_scope(config, network, model)
    asked = {name: config.sparsity_of(name, type(layer).__name__) for name, layer in layers.items()}
    targets = {name: sparsity for name, sparsity in asked.items() if sparsity != 0}
    problems = _misfits(config, {name: layers[name] for name in targets})
    if problems:
        name, problem = next(iter(problems.items()))
        fix = ", ".join(f'"{layer}" = 0' for layer in problems)
        raise BenchError(
            f"{network.name}: {name} {list(layers[name].weight.shape)} cannot have {config.name!r}: {problem}; "
            f"leave what cannot dense: layers = {{ {fix} }}"
        )
    return targets


def fitted_to(config: _Config, network: Network, model: nn.Module) -> _Config:
    """`config` with the layers left dense that cannot take its pattern."""
    misfits = _misfits(config, _in_scope(config, network, model))
    return config.model_copy(update={"layers": (*((name, 0.0) for name in misfits), *config.layers)})


def _misfits(config: PruningConfig, layers: Mapping[str, PrunableLayer]) -> dict[str, str]:
    """What is wrong with the config's pattern for each of the layers that cannot take it."""
    if config.pattern is None:
        return {}
    problems = {name: config.pattern.problem(tuple(layer.weight.shape)) for name, layer in layers.items()}
    return {name: problem for name, problem in problems.items() if problem}


def deciding_keys(config: PruningConfig, network: Network, model: nn.Module) -> set[str]:
    """The keys of `config.layers` that decide over a layer in scope."""
    layers = layers_in_scope(model, config.scope or network.scope)
    return {key for name, layer in layers.items() if (key := config.key_of_layers(name, type(layer).__name__))}


def scope_in_words(config: PruningConfig, network: Network, model: nn.Module) -> str:
    """The pruned layers for a table: the scope, without what the algorithm or `config.layers` leaves dense."""
    scope = config.scope or network.scope
    layers = layers_in_scope(model, scope)
    if not config.prunes_groups and any(is_depthwise(layer) for layer in layers.values()):
        scope = scope.model_copy(update={"depthwise": False})
    deciding = deciding_keys(config, network, model)
    if config.prunes_named_only:
        return ", ".join(key for key, sparsity in config.layers if sparsity and key in deciding)
    dense = [key for key, sparsity in config.layers if not sparsity and key in deciding and key not in scope.exclude]
    return scope.model_copy(update={"exclude": (*scope.exclude, *dense)}).describe()


def scope_of_own_config(targets: Iterable[str]) -> str:
    """The scope in words where a Core ML Tools config chose the layers."""
    return f"{len(list(targets))} layers by Core ML Tools config"


def read_own_config(config: PruningConfig, read: Callable[[dict[str, Any]], _Own]) -> _Own:
    """Build the Core ML Tools config object that `config.coremltools` describes, with `read`.

    Raises BenchError of one line for what Core ML Tools rejects in its own ways.
    """
    try:
        return read(deepcopy(config.coremltools or {}))  # a copy: its readers change what they read
    except BaseValidationError as error:
        raise BenchError(f"{config.name}: not a Core ML Tools config: {'; '.join(transform_error(error))}") from error
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as error:
        raise BenchError(f"{config.name}: not a Core ML Tools config: {error}") from error


def _in_scope(config: PruningConfig, network: Network, model: nn.Module) -> dict[str, PrunableLayer]:
    layers = layers_in_scope(model, config.scope or network.scope)
    return {name: layer for name, layer in layers.items() if config.prunes_groups or not is_depthwise(layer)}
