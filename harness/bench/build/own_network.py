"""What has to be found out of a network that the user brings before it is pruned: nothing was known of it before."""

from collections import Counter
from typing import TYPE_CHECKING

from torch import nn

from coreml_prune_bench.core.errors import CellFailedError, PackageError
from coreml_prune_bench.mlprogram.summary import PackageSummary
from coreml_prune_bench.models.conversion import weight_parameters
from coreml_prune_bench.models.heads import failure_on, problem_of
from coreml_prune_bench.models.layers import prunable_layers
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.tracing import observe
from coreml_prune_bench.models.weight_names import weight_output

if TYPE_CHECKING:
    from coreml_prune_bench.data import DataSet


def check_own(network: Network, model: nn.Module, data: "DataSet") -> Counter[str]:
    """Run a network that we know nothing of on one image: how often it calls its layers.

    Raises CellFailedError where it does not take such images, does not give a number for each class, or is not of real
    numbers.
    """
    size, classes = data.image_size, len(data.classes)
    if unreal := [name for name, parameter in model.named_parameters() if parameter.is_complex()]:
        raise CellFailedError(
            f"{network.name}: {unreal[0]!r} is complex, which Core ML has no weights for: expected real and imaginary "
            "parts as parameters of their own (torch.view_as_real)"
        )
    try:
        observation = observe(model, size)
    except Exception as error:  # its code may raise anything
        raise CellFailedError(failure_on(error, network.name, size)) from error
    problem = problem_of(observation.output) or (
        "" if observation.output.shape[1] == classes else f"{list(observation.output.shape)}"
    )
    if problem:
        raise CellFailedError(
            f"{network.name}: expected [1, {classes}] of an image, a number for each class, got {problem}"
        )
    return observation.calls


def not_prunable(model: nn.Module, calls: Counter[str], dense: PackageSummary) -> tuple[str, ...]:
    """Layers that are no use to prune: never called as such, or without a weight of their name in the dense package.

    model: the network that `dense` was converted from.
    """
    parameters = weight_parameters(model)

    def is_found(layer: str) -> bool:
        try:
            return dense.weight_of_layer(layer).name == weight_output(layer, parameters[layer])
        except PackageError:
            return False

    return tuple(name for name in prunable_layers(model) if not calls[name] or not is_found(name))
