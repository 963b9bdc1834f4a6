"""What the harness needs to know of a network, and the registry of the networks it can measure.

A new network is one small file in `models/networks`: a `Network` and a call of `register`. Those files import torch and
torchvision inside their functions, so that knowing the networks costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from harness.errors import BenchError
from models.config import Scope

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Network:
    """A network that can be pruned and converted.

    name: the identifier in suites, records and weight file names, such as "mobilenet_v2".
    title: the name in tables.
    build: number of classes -> untrained network in torchvision's layout; takes normalized float32 [N, 3, H, W].
    head: dotted name of the last linear layer, replaced when the data has other classes.
    sequential: a view of the network as nn.Sequential that shares its modules and keeps their names, for SparseGPT.
    scope: the layers pruned by default.
    pretrained: torchvision's name of the weights that are downloaded when no folder is given; None if there are none.
    """

    name: str
    title: str
    build: Callable[[int], nn.Module]
    head: str
    sequential: Callable[[nn.Module], nn.Sequential]
    scope: Scope
    pretrained: str | None = None


_REGISTRY: dict[str, Network] = {}


def register(network: Network) -> Network:
    """Make `network` known under its name. Raises ValueError if the name is taken."""
    if network.name in _REGISTRY:
        raise ValueError(f"a network named {network.name!r} is registered already")
    _REGISTRY[network.name] = network
    return network


def get_network(name: str) -> Network:
    """The network registered as `name`. Raises BenchError that lists the known names."""
    if name not in _REGISTRY:
        close = get_close_matches(name, _REGISTRY, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(_REGISTRY))}"
        raise BenchError(f"unknown network {name!r}; {hint}")
    return _REGISTRY[name]
