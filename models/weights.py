"""Pre-trained weights: torchvision's, downloaded with its hash check, or files from a folder."""

import sys
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torchvision.models import get_weight

from coreml_prune_bench.models.errors import WeightsError
from coreml_prune_bench.models.imagenet import IMAGENET_CLASSES
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.own import last_linear
from coreml_prune_bench.models.state_dicts import StateDict, read_state_dict, refuse_values
from coreml_prune_bench.models.weight_files import weights_file


def load_pretrained(network: Network, folder: Path | None) -> StateDict:
    """Float32 state dict for the network: from `folder/<name>.pth`, downloaded, or as the user's function loads it.

    A file may hold it under a key, or with a word such as "module." before its names: see models/state_dicts.py.

    Raises WeightsError when the file is missing, damaged, or of another architecture, or holds what are no weights.
    """
    if folder is not None:
        path = weights_file(network, folder)
        state, whose = read_state_dict(path, lambda: _names(network)), f"the weights in {path}"
    else:
        state = network.own.weights() if network.own is not None else _download(network)
        whose = f"the weights of {network.name}"
    refuse_values(state, _parameters(network), whose)
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    _check_architecture(network, state)
    return state


def untrained_model(network: Network, num_classes: int, *, seed: int = 0) -> nn.Module:
    """The network with seeded random weights, or with those that a function of the user returns it with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _with_classes(network, network.build(num_classes), num_classes)


def initial_model(network: Network, state: StateDict, num_classes: int, *, seed: int = 0) -> nn.Module:
    """The pre-trained network in eval mode, with a new, seeded head where the data's classes are not the head's."""
    model = network.build(head_classes(network, state))
    model.load_state_dict(state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _with_classes(network, model, num_classes).eval()


def head_classes(network: Network, state: StateDict) -> int:
    """The classes that these weights tell apart. Raises BenchError for a network without a linear layer."""
    head = network.head or _last_linear(network)
    if f"{head}.weight" not in state:
        raise WeightsError(f"the weights for {network.name} are of another architecture: they lack {head!r}")
    return state[f"{head}.weight"].shape[0]


def _with_classes(network: Network, model: nn.Module, num_classes: int) -> nn.Module:
    name = network.head or last_linear(model, network.name)
    head = model.get_submodule(name)
    assert isinstance(head, nn.Linear)
    if head.out_features != num_classes:
        model.set_submodule(name, nn.Linear(head.in_features, num_classes))
    return model


@cache
def _last_linear(network: Network) -> str:
    return last_linear(network.build(IMAGENET_CLASSES), network.name)


@cache
def _names(network: Network) -> frozenset[str]:
    return frozenset(network.build(IMAGENET_CLASSES).state_dict())


@cache
def _parameters(network: Network) -> frozenset[str]:
    return frozenset(name for name, _ in network.build(IMAGENET_CLASSES).named_parameters())


def _download(network: Network) -> StateDict:
    if network.pretrained is None:
        raise WeightsError(f"{network.name} has no pre-trained weights to download; give a folder with --weights")
    weights = get_weight(network.pretrained)
    try:
        return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
    except OSError as error:  # no network, no space, no such file
        raise WeightsError(
            f"cannot download {weights.url} ({error}); give a folder that has {network.name}.pth with --weights"
        ) from error
    except RuntimeError as error:  # the hash does not match
        raise WeightsError(f"{weights.url}: {error}") from error


def _check_architecture(network: Network, state: StateDict) -> None:
    head = f"{network.head or _last_linear(network)}.weight"
    expected = network.build(state[head].shape[0] if head in state else IMAGENET_CLASSES).state_dict()
    # Older files lack the counters of BatchNorm, which nothing here reads.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in expected]
    misshapen = [key for key in expected if key in state and expected[key].shape != state[key].shape]
    for what, keys in (("lack", missing), ("have an unknown", unknown), ("have another shape for", misshapen)):
        if keys:
            others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise WeightsError(
                f"the weights for {network.name} are of another architecture: they {what} {keys[0]!r}{others}"
            )
    for key in expected:
        state.setdefault(key, expected[key])
