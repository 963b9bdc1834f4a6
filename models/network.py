"""What the harness needs to know of a network, and the registry of the networks it can measure.

A new network is one small file in `models/networks`: a `Network` and a call of `register`. Those files import torch and
torchvision inside their functions, so that knowing the networks costs nothing. Networks that are no part of the project
are named by a spec, which `models/own.py` reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from harness.errors import BenchError
from models.config import Scope

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Own:
    """What is known of a network that the user brings.

    spec: as `--model` and suites have it. sources: the files and packages that it comes from, by name, with what tells
    their versions apart. weights: its own pre-trained ones, and weights_name: what identifies them. Neither `spec` nor
    `sources` needs torch.
    """

    spec: str
    sources: Callable[[], dict[str, str]]
    weights: Callable[[], dict[str, Tensor]]
    weights_name: Callable[[], str]


@dataclass(frozen=True)
class Network:
    """A network that can be pruned and converted.

    name: the identifier in suites, records and weight file names, such as "mobilenet_v2".
    title: the name in tables.
    build: number of classes -> untrained network in torchvision's layout; takes normalized float32 [N, 3, H, W].
    head: dotted name of the last linear layer, replaced when the data has other classes; None: the last one there is.
    scope: the layers pruned by default.
    pretrained: torchvision's name of the weights that are downloaded when no folder is given; None if there are none.
    own: for a network that is no part of the project; its weights then come from there.
    """

    name: str
    title: str
    build: Callable[[int], nn.Module]
    head: str | None
    scope: Scope
    pretrained: str | None = None
    own: Own | None = None

    @property
    def spec(self) -> str:
        """As a suite names it."""
        return self.own.spec if self.own else self.name

    def sequential(self, model: nn.Module) -> nn.Sequential:
        """`model` as its consecutive stages: `sequential_view` of models.stages."""
        from models.stages import sequential_view

        return sequential_view(model, self.name)


_REGISTRY: dict[str, Network] = {}


def register(network: Network) -> Network:
    """Make `network` known under its name. Raises ValueError if the name is taken."""
    if network.name in _REGISTRY:
        raise ValueError(f"a network named {network.name!r} is registered already")
    _REGISTRY[network.name] = network
    return network


def registered_networks() -> list[Network]:
    """Every network that is no user's own, in the order of their names."""
    return [_REGISTRY[name] for name in sorted(_REGISTRY)]


def get_network(name: str) -> Network:
    """The network registered as `name`, or the user's own that this is the spec of. Raises BenchError of one line."""
    from models.own import is_spec, own_network

    if is_spec(name):
        return own_network(name)
    if name not in _REGISTRY:
        close = get_close_matches(name, _REGISTRY, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(_REGISTRY))}"
        raise BenchError(f"unknown network {name!r}; {hint}")
    return _REGISTRY[name]
