"""What a converted program calls the weights of a network's layers, so that each layer has one of its own.

Core ML Tools writes whatever is no ASCII letter, digit or underscore as an underscore. `conv1.1` and `conv1_1` are then
called the same, and which of them gets a number behind its name depends on the program's order. Layers whose names do
not tell are therefore converted with their weight under a parameter's name of their own: a mark, made of the layer's
whole name. All others keep the names that they have always had.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

WEIGHT = "weight"
"""The parameter that has a layer's weight in torch."""

_MARKED = re.compile(r"weight_[0-9a-f]{8}")


def marked(layer: str) -> str:
    """The parameter's name by which the weight of `layer` is told from those of layers of the same Core ML name."""
    return f"{WEIGHT}_{hashlib.sha256(layer.encode()).hexdigest()[:8]}"


def marks_in(names: Iterable[str]) -> set[str]:
    """What `marked` gave the layers that these names of a program's values are of."""
    return {mark for name in names for mark in _MARKED.findall(name)}


def weight_name(layer: str, parameter: str = WEIGHT) -> str:
    """The name of the operation that holds the weight of the torch layer `layer` in a Float16 program.

    parameter: what its weight is called in torch.
    """
    return f"{_name(f'{layer}.{parameter}', 'op_')}_to_fp16"


def weight_output(layer: str, parameter: str = WEIGHT) -> str:
    """The name of that operation's output, under which packages list the weight."""
    return f"{_name(f'{layer}.{parameter}', 'var_')}_to_fp16"


def quantized_name(layer: str, parameter: str = WEIGHT) -> str:
    """The name of the operation that holds the weight where it was quantized before it was converted."""
    return f"{_name(f'{layer}.{parameter}', 'op_')}_cast_fp16"


def names_of_weight(layer: str, parameter: str = WEIGHT) -> re.Pattern[str]:
    """Matches, as a whole, every name that a package can have for the weight, however it is stored."""
    either = "|".join(re.escape(name) for name in _names(f"{layer}.{parameter}"))
    return re.compile(rf"({either})(_(to|cast)_fp(16|32))?(_[a-z]+)*")


def called_alike(layers: Iterable[str], tensors: Iterable[str]) -> set[str]:
    """Those of `layers` whose weight a program calls as another tensor of the network.

    tensors: the dotted names of all parameters and buffers; the layers' own may be among them.
    """
    weights = {f"{layer}.{WEIGHT}": layer for layer in layers}
    users = Counter(name for tensor in {*tensors, *weights} for name in _names(tensor))
    return {layer for weight, layer in weights.items() if any(users[name] > 1 for name in _names(weight))}


def _names(tensor: str) -> set[str]:
    """An operation's and a value's: before a digit they differ."""
    return {_name(tensor, "op_"), _name(tensor, "var_")}


def _name(tensor: str, before_a_digit: str) -> str:
    stem = re.sub(r"\W", "_", tensor, flags=re.ASCII)
    return f"{before_a_digit if stem[0].isdigit() else ''}{stem}"
