"""Can the layers of the networks be pruned as the configs say? Asked before anything is built, which can take hours."""

from collections.abc import Iterable

from torch import nn

from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.core.errors import BenchError, did_you_mean
from coreml_prune_bench.models.imagenet import IMAGENET_CLASSES
from coreml_prune_bench.models.layers import matching, prunable_layers
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.task import deciding_keys, layer_sparsities
from coreml_prune_bench.models.registry import registered_networks
from coreml_prune_bench.models.weights import untrained_model

Named = tuple[str, str]
"""Where a config names layers, `layers` or `scope.exclude`, and how: a name or a pattern."""


def refuse_impossible(cells: Iterable[Cell]) -> None:
    """Raise BenchError for the first config that a network's layers cannot take, or that names layers there are not.

    The code of the user's own networks may fail, which is their cells' failure and not told here; whether their layers
    can take a pattern is checked when their cells are built.
    """
    asked = [(cell.config, cell.subject) for cell in cells if cell.config is not None]
    models: dict[Network, nn.Module | None] = {}
    for config, subject in asked:
        network = subject.network
        if network not in models:
            models[network] = _made(network, len(subject.data.classes), subject.data.image_size)
        model = models[network]
        if model is not None and network.own is None:
            layer_sparsities(config, network, model)
    for config, subject in asked:
        _check_names(config, subject.network, models)


def _made(network: Network, classes: int, image_size: int) -> nn.Module | None:
    """The network, untrained; None for one of the user's that cannot be made."""
    try:
        return untrained_model(network, classes, image_size=image_size)
    except Exception:  # the user's code may raise anything; it is told when the network is built
        if network.own is None:
            raise
        return None


def _check_names(config: PruningConfig, network: Network, models: dict[Network, nn.Module | None]) -> None:
    """A name can be for another network than this one: configs are shared, and a run may be of some networks alone."""
    patterns = config.scope.exclude if config.scope else ()
    unused = {*(("layers", key) for key, _ in config.layers), *(("scope.exclude", pattern) for pattern in patterns)}
    for known in (network, *models, *registered_networks()):
        if not unused:
            return
        if known not in models:
            models[known] = untrained_model(known, IMAGENET_CLASSES)
        if (model := models[known]) is None:
            return  # whatever it is may be for this one, whose layers nobody knows
        unused -= _used(config, known, model)
    if unused:
        raise BenchError(_nothing_named(config, network, models[network], min(unused)))


def _used(config: PruningConfig, network: Network, model: nn.Module) -> set[Named]:
    keys = deciding_keys(config, network, model)
    patterns = matching(model, config.scope.exclude if config.scope else ())
    return {*(("layers", key) for key in keys), *(("scope.exclude", pattern) for pattern in patterns)}


def _nothing_named(config: PruningConfig, network: Network, model: nn.Module | None, named: Named) -> str:
    where, name = named
    layers = prunable_layers(model) if model else {}
    known = {*layers, *(f"{layer.split('.')[0]}.*" for layer in layers if "." in layer)}
    if where == "layers":
        return (
            f"{config.name}: layers: {name!r} decides over no layer in scope of {network.name}; expected one's name, "
            "with * and ? as wildcards, or a type such as Conv2d, before other keys for the same layers"
            + did_you_mean(name, {*known, "Conv2d", "Linear"} - {key for key, _ in config.layers})
        )
    return (
        f"{config.name}: scope.exclude: {name!r} names no convolution or linear layer of {network.name}; expected "
        f"one's name, with * and ? as wildcards{did_you_mean(name, known)}"
    )
