"""Pre-trained weights: torchvision's, downloaded with its hash check, or files from a folder."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_weight

from coreml_prune_bench.models.download_limits import bytes_of, limited
from coreml_prune_bench.models.errors import WeightsError
from coreml_prune_bench.models.heads import head_of, new_layer, with_classes
from coreml_prune_bench.models.imagenet import IMAGENET_CLASSES, IMAGENET_SIZE
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.plain import with_plain_weights
from coreml_prune_bench.models.state_dicts import StateDict, read_state_dict, refuse_values
from coreml_prune_bench.models.weight_files import weights_file


def load_pretrained(network: Network, folder: Path | None) -> StateDict:
    """Float32 state dict for the network: from `folder/<name>.pth`, downloaded, or as the user's function loads it.

    A file may hold it under a key, or with a word such as "module." before its names: see models/state_dicts.py.

    Weights that the network computes of others (weight_norm, spectral_norm) are in it as what is computed.
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
    model = _made_for(network, network.build, state)
    _check_architecture(network, model.state_dict(), state)
    if with_plain_weights(model).state_dict().keys() == state.keys():
        return state
    model = _made_for(network, network.build, state)
    model.load_state_dict(state)
    return with_plain_weights(model).state_dict()


def untrained_model(network: Network, num_classes: int, *, image_size: int = IMAGENET_SIZE, seed: int = 0) -> nn.Module:
    """The network with seeded random weights, or with those that a function of the user returns it with.

    image_size: of images that it takes, on one of which its head is found where the network does not name it.
    Raises CellFailedError where it is not for so many classes and cannot get a new head.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _with_classes(network, _plain(network)(num_classes), num_classes, image_size)


def initial_model(
    network: Network,
    state: StateDict,
    num_classes: int,
    *,
    rows: Sequence[int] | None = None,
    image_size: int = IMAGENET_SIZE,
    seed: int = 0,
) -> nn.Module:
    """The pre-trained network in eval mode, with another head where it is not of so many classes.

    rows: of the head of these weights, by class, those that the other one is made of; None: it is new and seeded.
    image_size, and what it raises: as of `untrained_model`.
    """
    build = _plain(network)
    model = _made_for(network, build, state)
    if _misshapen(model.state_dict(), state):  # it had a new head when these were trained
        model = _made_for(network, lambda number: _with_classes(network, build(number), num_classes, image_size), state)
    model.load_state_dict(state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _with_classes(network, model, num_classes, image_size, rows).eval()


def head_classes(network: Network, state: StateDict, image_size: int = IMAGENET_SIZE) -> int:
    """The classes that these weights tell apart: what the network gives of an image, unless it names its head.

    Raises CellFailedError where it does not take an image of that size, or gives no number for each class.
    """
    if network.head is None:
        return head_of(_made_for(network, _plain(network), state), image_size, network.name).classes
    if f"{network.head}.weight" not in state:
        raise WeightsError(f"the weights for {network.name} are of another architecture: they lack {network.head!r}")
    return state[f"{network.head}.weight"].shape[0]


def _with_classes(
    network: Network, model: nn.Module, num_classes: int, image_size: int, rows: Sequence[int] | None = None
) -> nn.Module:
    if network.head is None:
        return with_classes(model, num_classes, image_size, network.name, rows=rows)
    head = model.get_submodule(network.head)
    assert isinstance(head, nn.Linear)
    if head.out_features != num_classes:
        model.set_submodule(network.head, new_layer(head, num_classes, rows))
    return model


def _plain(network: Network) -> Callable[[int], nn.Module]:
    """What makes the network, of a number of classes, with weights that nothing computes."""
    return lambda num_classes: with_plain_weights(network.build(num_classes))


def _made_for(network: Network, build: Callable[[int], nn.Module], state: StateDict) -> nn.Module:
    """The network, untrained, of as many classes as these weights are for; of ImageNet's where no number fits them."""
    if network.head is not None:
        head = f"{network.head}.weight"
        return build(state[head].shape[0] if head in state else IMAGENET_CLASSES)
    model = build(IMAGENET_CLASSES)
    for classes in dict.fromkeys(_numbers_of_classes(model.state_dict(), state)):
        other = build(classes)
        if not _misshapen(other.state_dict(), state):
            return other
    return model


def _numbers_of_classes(expected: StateDict, state: StateDict) -> Iterator[int]:
    """For how many classes weights can be, by where their shapes differ from those for ImageNet's."""
    for key in _misshapen(expected, state):
        for wanted, found in zip(expected[key].shape, state[key].shape, strict=False):
            if wanted != found and wanted % IMAGENET_CLASSES == 0:
                yield found * IMAGENET_CLASSES // wanted


def _misshapen(expected: StateDict, state: StateDict) -> list[str]:
    return [key for key in expected if key in state and expected[key].shape != state[key].shape]


@cache
def _names(network: Network) -> frozenset[str]:
    return frozenset(network.build(IMAGENET_CLASSES).state_dict())


@cache
def _parameters(network: Network) -> frozenset[str]:
    """Names of those that are floats: what else a network is made of, it has chosen."""
    parameters = network.build(IMAGENET_CLASSES).named_parameters()
    return frozenset(name for name, value in parameters if value.is_floating_point())


def _download(network: Network) -> StateDict:
    if network.pretrained is None:
        raise WeightsError(f"{network.name} has no pre-trained weights to download; give a folder with --weights")
    weights = get_weight(network.pretrained)
    try:
        bars = sys.stderr.isatty()
        return dict(limited(lambda: weights.get_state_dict(progress=bars, check_hash=True), bytes_of(weights)))
    except OSError as error:  # no network, no space, no such file
        raise WeightsError(
            f"cannot download {weights.url} ({error}); give a folder that has {network.name}.pth with --weights"
        ) from error
    except RuntimeError as error:  # the hash does not match
        raise WeightsError(f"{weights.url}: {error}") from error


def _check_architecture(network: Network, expected: StateDict, state: StateDict) -> None:
    """Raises WeightsError where `state` is not for the network, whose own state is `expected`; fills in counters."""
    # Older files lack the counters of BatchNorm, which nothing here reads.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in expected]
    misshapen = _misshapen(expected, state)
    foreign = [key for key in expected if key in state and _is_other_kind(state[key], expected[key])]
    if foreign:
        raise WeightsError(
            f"the weights for {network.name} cannot be taken: {foreign[0]!r} is {_kind(state[foreign[0]])}, where the "
            f"network has {_kind(expected[foreign[0]])}; expected real floating-point numbers"
        )
    for what, keys in (("lack", missing), ("have an unknown", unknown), ("have another shape for", misshapen)):
        if keys:
            others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise WeightsError(
                f"the weights for {network.name} are of another architecture: they {what} {keys[0]!r}{others}"
            )
    for key in expected:
        state.setdefault(key, expected[key])


def _is_other_kind(found: Tensor, expected: Tensor) -> bool:
    """Whether copying would change what is meant: complex numbers lose half, integers have a scale of their own."""
    return found.is_complex() != expected.is_complex() or found.is_floating_point() != expected.is_floating_point()


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
