"""Can the layers of the networks be pruned as the configs say? Asked before anything is built, which can take hours."""

from collections.abc import Iterable

from torch import nn

from coreml_prune_bench.bench.cells import Cell
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.task import deciding_keys, layer_sparsities
from coreml_prune_bench.models.registry import registered_networks
from coreml_prune_bench.models.weights import IMAGENET_CLASSES, untrained_model


def refuse_impossible(cells: Iterable[Cell]) -> None:
    """Raise BenchError for the first config that a network's layers cannot take, or whose `layers` name none of them.

    The user's own networks are left out: their code may fail, which is their cells' failure. Their layers are checked
    when their cells are built.
    """
    asked = [(cell.config, cell.subject) for cell in cells if cell.config is not None and not cell.subject.network.own]
    models: dict[str, nn.Module] = {}
    for config, subject in asked:
        network = subject.network
        if network.name not in models:
            models[network.name] = untrained_model(network, len(subject.data.classes))
        layer_sparsities(config, network, models[network.name])
    for config, subject in asked:
        _check_keys(config, subject.network, models)


def _check_keys(config: PruningConfig, network: Network, models: dict[str, nn.Module]) -> None:
    """A key can be for another network than this one: configs are shared, and a run may be of some networks alone."""
    unused = {key for key, _ in config.layers} - deciding_keys(config, network, models[network.name])
    for other in registered_networks():
        if not unused:
            return
        if other.name not in models:
            models[other.name] = untrained_model(other, IMAGENET_CLASSES)
        unused -= deciding_keys(config, other, models[other.name])
    if unused:
        key = next(key for key, _ in config.layers if key in unused)
        raise BenchError(
            f"{config.name}: layers: {key!r} decides over no layer in scope of {network.name}; expected one's name, "
            "with * and ? as wildcards, or a type such as Conv2d, before other keys for the same layers"
        )
