"""The networks that can be measured, by name.

A new network is one small file in `models/networks`: a `Network` and a call of `register`. Those files import torch and
torchvision inside their functions, so that knowing the networks costs nothing. Networks that are no part of the project
are named by a spec, which `models/own.py` reads.
"""

from coreml_prune_bench.models.errors import BenchError, did_you_mean
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.own import is_spec, own_network

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
    if is_spec(name):
        return own_network(name)
    if name not in _REGISTRY:
        hint = did_you_mean(name, _REGISTRY) or f"; known: {', '.join(sorted(_REGISTRY))}"
        raise BenchError(f"unknown network {name!r}{hint}")
    return _REGISTRY[name]
