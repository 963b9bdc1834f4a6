"""The networks that can be measured, by name.

A new network is one small file in `models/networks`: a `Network` and a call of `register`. Those files import torch and
torchvision inside their functions, so that knowing the networks costs nothing. Networks that are no part of the project
are named by a spec, which `models/own.py` reads.
"""

from difflib import get_close_matches
from pathlib import Path

from coreml_prune_bench.models.errors import BenchError, did_you_mean
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.own import SPECS, is_spec, own_network

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
        raise BenchError(f"unknown network {name!r}{_meant(name)}")
    return _REGISTRY[name]


def _meant(name: str) -> str:
    """What may have been meant, as the end of a message."""
    kind, colon, rest = name.partition(":")
    if colon:
        near = get_close_matches(kind.lower(), ("torchvision", "timm"), n=1)
        spec = f"{near[0]}:{rest}" if near else f"{kind}.py:{rest}" if Path(f"{kind}.py").is_file() else ""
        return f"; did you mean {spec!r}?" if spec else f"; expected a name, or {SPECS}"
    known = did_you_mean(name, _REGISTRY) or f"; known: {', '.join(sorted(_REGISTRY))}"
    return f"{known}; any other network is {SPECS}"
