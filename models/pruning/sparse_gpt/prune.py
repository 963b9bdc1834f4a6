"""SparseGPT (Frantar and Alistarh 2023), by Core ML Tools' rule and configs; BatchNorm re-estimated if asked.

Its n:m groups are neighbours in a row [C_in x kH x kW], as it walks it; those of other algorithms lie along C_in.
"""

import re
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from coremltools.optimize.torch.layerwise_compression import LayerwiseCompressorConfig, ModuleSparseGPTConfig
from torch import nn

from coreml_prune_bench.models.batchnorm_statistics import carried_over_batchnorm
from coreml_prune_bench.models.conversion import quantization_scale
from coreml_prune_bench.models.devices import describe
from coreml_prune_bench.models.layers import PrunableLayer, is_depthwise, prunable_layers
from coreml_prune_bench.models.layout import back_from_device, move, to_device
from coreml_prune_bench.models.pattern import Pattern
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.pruning.sparse_gpt.walk import prune_stages
from coreml_prune_bench.models.pruning.task import (
    Pruned,
    PruningTask,
    Targets,
    layer_sparsities,
    patterns_of,
    read_own_config,
    scope_in_words,
    scope_of_own_config,
)
from coreml_prune_bench.models.training import calibration_batches

_BATCH_SIZE = 16
"""Bounds the memory of the unfolded inputs. Hessians are averages over images: the result does not depend on it."""

_COLUMNS_AT_ONCE = 128
"""Core ML Tools' default: the inputs whose pruning is made up for at once."""


def prune(config: SparseGPTConfig, task: PruningTask) -> Pruned:
    """Prune stage by stage with calibration images, from the input on. Convolutions with groups stay dense."""
    dense = deepcopy(task.model) if config.batchnorm_samples else None
    targets, scope = sparsify(config, task)
    if dense is not None:
        _carry_over_batchnorm(config, task, dense)
    own = read_own_config(config, _read) if config.coremltools is not None else None
    if own is None:
        patterns = patterns_of(config, targets)
    else:
        patterns = {name: p for name in targets if (p := _own_pattern(own, name, task.model))}
    return Pruned(config, task.model, task.image_size, targets, scope, (describe(task.session.device),), patterns)


@torch.no_grad()
def _carry_over_batchnorm(config: SparseGPTConfig, task: PruningTask, dense: nn.Module) -> None:
    """In place: pruned weights no longer produce the statistics that BatchNorm has."""
    device = task.session.device
    layout = to_device(task.model, device, task.image_size)
    move(dense.eval(), device, layout)
    with carried_over_batchnorm(task.model, dense):
        for batch in calibration_batches(task.calibration_data(), config.batchnorm_samples, batch_size=64):
            task.model(batch.to(device))
            dense(batch.to(device))
    back_from_device(task.model)


def sparsify(config: SparseGPTConfig, task: PruningTask, unpruned: nn.Module | None = None) -> tuple[Targets, str]:
    """Prune the task's network in torch, its BatchNorm left alone: the layers' targets, and the scope in words.

    On the session's device, stage by stage; the network is on the CPU before and after. unpruned: what it was once,
    where the task's has zeros already.
    """
    view = task.network.sequential(task.model.eval())
    own_config, samples, scope = _compressor_config(config, task)
    targets = _targets(own_config, task.model)
    layers = {name: layer for name, layer in prunable_layers(task.model).items() if name in targets}
    configs = {name: own_config.get_module_config(name, layer) for name, layer in layers.items()}
    batches = list(calibration_batches(task.calibration_data(), samples, _BATCH_SIZE, views=config.views))
    head = task.head if config.class_rows else ()
    dense = {name: _weights(unpruned if unpruned is not None else task.model, name) for name in (*layers, *head)}
    _break_ties(layers.values())
    prune_stages(
        list(view),
        batches,
        layers,
        configs,
        class_rows={name: dense[name] for name in head},
        rows_share=config.class_rows,
        device=task.session.device,
        progress=task.progress,
    )
    for name, layer in layers.items():
        ratio = configs[name].n_m_ratio
        zeros, size = ratio or (round((targets[name] or 0.0) * layer.weight.numel()), layer.weight.numel())
        _give_back_unseen(layer.weight, _as_stored(layer, dense[name]), zeros, size)
    return targets, scope or scope_of_own_config(targets)


def _weights(model: nn.Module, layer: str) -> torch.Tensor:
    """A copy, on the CPU."""
    return model.get_parameter(f"{layer}.weight").detach().cpu().clone()


def _compressor_config(config: SparseGPTConfig, task: PruningTask) -> tuple[LayerwiseCompressorConfig, int, str | None]:
    """Core ML Tools' config, the number of calibration images, and the scope in words where it is ours."""
    if config.coremltools is not None:
        own_config = read_own_config(config, _read)
        return own_config, own_config.calibration_nsamples, None
    targets = layer_sparsities(config, task.network, task.model)
    own_config = LayerwiseCompressorConfig.from_dict(as_coremltools(config, targets))
    return own_config, config.calibration_samples, scope_in_words(config, task.network, task.model)


def as_coremltools(config: SparseGPTConfig, targets: Targets) -> dict[str, Any]:
    """What Core ML Tools' LayerwiseCompressorConfig reads: these sparsities by layer."""
    return {"module_name_configs": {re.escape(name): _layer_config(config, own) for name, own in targets.items()}}


def coremltools_yaml(config: SparseGPTConfig, targets: Targets, training_images: int) -> tuple[str, dict[str, Any]]:
    """What to know of the file, and what is in it."""
    note = (
        "Read by coremltools.optimize.torch.layerwise_compression.LayerwiseCompressorConfig.from_yaml; it takes "
        "networks that are nn.Sequential, and counts batches as samples: here, of one image."
    )
    samples = config.batchnorm_samples
    again = f" Afterwards BatchNorm followed what pruning did to {samples} images." if samples else ""
    if config.takes_synthetic:
        again = f" Its images were synthetic.{again}"
    content = {**as_coremltools(config, targets), "calibration_nsamples": config.calibration_samples}
    return note + again, content


def _layer_config(config: SparseGPTConfig, sparsity: float | None) -> dict[str, Any]:
    layer_config = {
        "algorithm": "sparse_gpt",
        "weight_dtype": config.weight_dtype,  # its own default, uint8, quantizes as well
        "hessian_dampening": config.dampening,
    }
    if config.n_m_ratio is None:
        return {**layer_config, "target_sparsity": sparsity}
    m = config.n_m_ratio[1]
    # Groups begin anew with each set of columns.
    return {**layer_config, "n_m_ratio": config.n_m_ratio, "processing_group_size": max(m, _COLUMNS_AT_ONCE // m * m)}


def _read(values: dict[str, Any]) -> LayerwiseCompressorConfig:
    config = LayerwiseCompressorConfig.from_dict(values)
    every = [config.global_config, *config.module_type_configs.values(), *config.module_name_configs.values()]
    for layer_config in filter(None, every):
        if not isinstance(layer_config, ModuleSparseGPTConfig):
            raise TypeError(f"algorithm {layer_config.algorithm} does not prune; sparse_gpt does")
        if layer_config.weight_n_bits < 16:
            raise TypeError("weight_dtype must be float32 (its default, uint8, quantizes as well)")
    return config


def _targets(config: LayerwiseCompressorConfig, model: nn.Module) -> Targets:
    """The layers that `config` prunes; convolutions with groups, which raise a shape error, are taken out of it."""
    targets: Targets = {}
    for name, layer in prunable_layers(model).items():
        layer_config = config.get_module_config(name, layer)
        if layer_config is None:
            continue
        if is_depthwise(layer):
            # The first match wins, so that the exclusion goes before a pattern that matches too.
            config.module_name_configs = {re.escape(name): None, **config.module_name_configs}
        else:
            ratio = layer_config.n_m_ratio
            targets[name] = ratio[0] / ratio[1] if ratio else layer_config.target_sparsity
    return targets


def _own_pattern(config: LayerwiseCompressorConfig, name: str, model: nn.Module) -> Pattern | None:
    ratio = config.get_module_config(name, model.get_submodule(name)).n_m_ratio
    return Pattern(along="row", size=ratio[1], zeros=ratio[0]) if ratio else None


@torch.no_grad()
def _break_ties(layers: Iterable[PrunableLayer]) -> None:
    """Tell equal weights apart, far below Float16's precision: SparseGPT zeroes all that tie with its threshold.

    Weights that were 8-bit once are equal in many places. A MobileNetV2's first layer came out 0.7 points too sparse.
    """
    draw = torch.Generator().manual_seed(0)
    for layer in layers:
        layer.weight.mul_(1 + 2**-16 * torch.rand(layer.weight.shape, generator=draw))


@torch.no_grad()
def _as_stored(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """Dense weights of `layer` as they would have been quantized, where it has been quantized."""
    scale = quantization_scale(layer)
    if scale is None:
        return weight
    step = scale.view(-1, *[1] * (weight.ndim - 1))
    return step * (weight / step).round().clamp(-128, 127)


@torch.no_grad()
def _give_back_unseen(weight: torch.Tensor, dense: torch.Tensor, zeros: int, size: int) -> None:
    """Undo the pruning beyond `zeros` of each `size` weights: dense weights of inputs that are zero on every image.

    SparseGPT zeroes all of those, however many they are. No calibration output depends on them, so that the dense
    network's weights, the largest first, are the best guess for other images.
    """
    unseen = (weight.flatten(1) == 0).all(dim=0).expand(len(weight), -1)  # [C_out, C_in x kH x kW]
    candidates = torch.where(unseen, dense.flatten(1).abs(), 0.0).reshape(-1, size)
    if not candidates.any():
        return
    excess = (weight.view(-1, size) == 0).sum(dim=1, keepdim=True) - zeros
    ranks = candidates.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    back = (ranks < excess) & (candidates > 0)
    weight.view(-1, size)[back] = dense.reshape(-1, size)[back]
