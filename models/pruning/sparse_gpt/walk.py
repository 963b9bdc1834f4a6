"""A network walked stage by stage, as Core ML Tools' LayerwiseCompressor does, its layers pruned by SparseGPT.

A stage's layers are pruned with what comes into them while the stage itself is dense and those before it are pruned.
So a stage runs twice, but not as a whole: what comes before its first pruned layer is the same both times, and the
first time nothing is needed behind the last one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import MappingProxyType

import torch
from coremltools.optimize.torch.layerwise_compression import ModuleSparseGPTConfig
from coremltools.optimize.torch.layerwise_compression.algorithms import SparseGPT
from torch import Tensor, nn

from coreml_prune_bench.models.devices import CPU, exact
from coreml_prune_bench.models.layers import PrunableLayer
from coreml_prune_bench.models.memory import kept_memory
from coreml_prune_bench.models.pruning.sparse_gpt.hessians import Hessian, add_rows
from coreml_prune_bench.models.pruning.sparse_gpt.surgery import operate
from coreml_prune_bench.models.stages import split_at
from coreml_prune_bench.models.training import Progress

_Values = tuple[Tensor, ...]


@torch.no_grad()
def prune_stages(
    stages: Sequence[nn.Module],
    batches: Sequence[Tensor],
    layers: Mapping[str, PrunableLayer],
    configs: Mapping[str, ModuleSparseGPTConfig],
    *,
    class_rows: Mapping[str, Tensor] = MappingProxyType({}),
    rows_share: float = 0.0,
    device: torch.device = CPU,
    progress: Progress = lambda done, total: None,
) -> None:
    """Prune `layers` in place, each as its config says, from the first stage on.

    batches: what the first stage takes; between two stages all batches' values are kept, in memory of the device.
    class_rows: dense weights [classes, ...] whose rows count as inputs of the layer, by `rows_share` of what comes in.
    """
    total, done = 2 * len(stages) * len(batches), 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    values: list[_Values] = [(batch.to(device),) for batch in batches]
    with exact(device), kept_memory():
        for stage in stages:
            inside = set(stage.modules())
            own = {name: layer for name, layer in layers.items() if layer in inside}
            stage.to(device)
            rest = _ready(stage, own, values)
            if own:
                hessians = _hessians(rest, values, own, advance)
                for name, layer in own.items():
                    hessian = hessians[name].clone()
                    if name in class_rows:
                        add_rows(hessian, class_rows[name].to(device), rows_share)
                    _prune(layer, hessian, configs[name])
                del hessians
            else:
                done += len(batches)
            _run(rest, values, advance)
            stage.to(CPU)


def _ready(stage: nn.Module, layers: Mapping[str, PrunableLayer], values: list[_Values]) -> nn.Module:
    """What is left of the stage once `values` have gone, in place, through all that the layers do not change."""
    parts = split_at(stage, list(layers.values())) if layers else None
    if parts is None:
        return stage
    before, rest = parts
    for number, value in enumerate(values):
        values[number] = before(*value)
    return rest


def _run(module: nn.Module, values: list[_Values], advance: Callable[[], None]) -> None:
    for number, value in enumerate(values):
        values[number] = (module(*value),)
        advance()


class _SeenAllError(Exception):
    """The last of the layers has its input."""


def _hessians(
    module: nn.Module, values: Sequence[_Values], layers: Mapping[str, PrunableLayer], advance: Callable[[], None]
) -> dict[str, Tensor]:
    """Of each layer, over what comes into it. Layers that are given the same have one and the same between them."""
    found = {name: Hessian(layer) for name, layer in layers.items()}
    alike: dict[str, str] = {}
    calls = None
    for value in values:
        takers = {name: hessian.add for name, hessian in found.items() if name not in alike}
        with _watched(layers, takers, until=calls) as seen, suppress(_SeenAllError):
            module(*value)
        if calls is None:
            calls = len(seen)
            alike = _given_the_same(layers, seen)
        advance()
    means = {name: hessian.mean() for name, hessian in found.items() if name not in alike}
    return {name: means[alike.get(name, name)] for name in layers}


_Seen = list[tuple[str, Tensor, int]]
"""Layer, what came into it, and how often that had been changed in place."""


@contextmanager
def _watched(
    layers: Mapping[str, PrunableLayer], takers: Mapping[str, Callable[[Tensor], None]], *, until: int | None
) -> Iterator[_Seen]:
    """Inside, what comes into the layers is given to their takers; after `until` calls the rest is not run."""
    seen: _Seen = []

    def look(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        value = inputs[0] if inputs else keywords["input"]
        seen.append((name, value, value._version))
        if name in takers:
            takers[name](value)
        if len(seen) == until:
            raise _SeenAllError

    hooks = [layer.register_forward_pre_hook(partial(look, name), with_kwargs=True) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _given_the_same(layers: Mapping[str, PrunableLayer], seen: _Seen) -> dict[str, str]:
    """Of layers whose Hessians are equal, the first one's name by those of the others."""
    given: dict[str, list[tuple[int, int]]] = {name: [] for name in layers}
    for name, value, version in seen:
        given[name].append((id(value), version))
    first: dict[tuple[object, ...], str] = {}
    alike = {}
    for name, layer in layers.items():
        window = (
            (layer.kernel_size, layer.stride, layer.padding, layer.dilation) if isinstance(layer, nn.Conv2d) else None
        )
        owner = first.setdefault((window, *given[name]), name)
        if owner != name:
            alike[name] = owner
    return alike


def _prune(layer: PrunableLayer, hessian: Tensor, config: ModuleSparseGPTConfig) -> None:
    """hessian: is worked in."""
    if config.weight_n_bits == 32:
        place = _with_linear_algebra(hessian.device)
        pruned = operate(layer.weight.flatten(1).to(place), hessian.to(place), config)
        layer.weight.copy_(pruned.reshape(layer.weight.shape))
        return
    # What is quantized too is chosen and corrected by Core ML Tools' own code.
    algorithm = SparseGPT(layer, config)
    algorithm._hessian = hessian
    # It would measure the error of the outputs for its log; of no image, that costs nothing.
    algorithm._inp1 = _no_image(layer)
    algorithm._out1 = layer(algorithm._inp1)
    algorithm.compress()
    algorithm.cleanup()


def _with_linear_algebra(device: torch.device) -> torch.device:
    """Apple's GPU has not all of what choosing weights takes, whatever the version of torch."""
    return CPU if device.type == "mps" else device


def _no_image(layer: PrunableLayer) -> Tensor:
    if isinstance(layer, nn.Linear):
        return layer.weight.new_zeros(0, layer.in_features)
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(layer.kernel_size, layer.dilation, strict=True)]
    return layer.weight.new_zeros(0, layer.in_channels, *reach)
