"""SparseGPT (Frantar and Alistarh 2023) through Core ML Tools' LayerwiseCompressor; BatchNorm re-estimated if asked."""

import re
from itertools import count
from typing import Any

import torch
from coremltools.optimize.torch.layerwise_compression import (
    LayerwiseCompressor,
    LayerwiseCompressorConfig,
    ModuleSparseGPTConfig,
)
from torch import nn

from models.config import SparseGPTConfig
from models.layers import is_depthwise, layers_in_scope, prunable_layers, stage_names
from models.pruning.job import Pruned, PruningJob, Targets, converted, read_own_config, scope_of_own_config
from models.training import calibration_batches, reestimate_batchnorm

# Bounds the memory of the unfolded inputs. LayerwiseCompressor averages over batches: the result does not depend on it.
_BATCH_SIZE = 16


def prune(config: SparseGPTConfig, job: PruningJob) -> Pruned:
    """Prune stage by stage with calibration images, then convert. Convolutions with groups stay dense."""
    view = job.network.sequential(job.model).eval()  # the compressor restores the mode it finds
    stages = stage_names(view)
    compressor_config, samples, scope = _compressor_config(config, job)
    targets = _targets(compressor_config, job.model)
    compressor_config.layers = [re.escape(stage) for stage in stages]
    batches = list(calibration_batches(job.training_data(), samples, _BATCH_SIZE))
    compressor_config.calibration_nsamples = len(batches)  # it counts batches
    unstructured = _unstructured(compressor_config, job.model, targets)
    dense = {name: layer.weight.detach().clone() for name, layer in unstructured.items()}
    hooks = _report_progress(view, stages, len(batches), job)
    LayerwiseCompressor(view, compressor_config).compress(batches, device="cpu", inplace=True)
    for hook in hooks:
        hook.remove()
    for name, layer in unstructured.items():
        _give_back_unseen(layer.weight, dense[name], targets[name] or 0.0)
    if config.batchnorm_samples:
        reestimate_batchnorm(job.model, job.training_data(), samples=config.batchnorm_samples)
    return converted(job, targets, scope or scope_of_own_config(targets))


def _compressor_config(config: SparseGPTConfig, job: PruningJob) -> tuple[LayerwiseCompressorConfig, int, str | None]:
    """Core ML Tools' config, the number of calibration images, and the scope in words where it is ours."""
    if config.coremltools is not None:
        own_config = read_own_config(config, _read)
        return own_config, own_config.calibration_nsamples, None
    layer_config = {
        "algorithm": "sparse_gpt",
        "target_sparsity": config.sparsity,
        "weight_dtype": "float32",  # the default, uint8, quantizes as well
        "hessian_dampening": config.hessian_dampening,
    }
    layers = layers_in_scope(job.model, job.scope(config))
    names = {re.escape(name): layer_config for name, layer in layers.items() if not is_depthwise(layer)}
    has_depthwise = len(names) < len(layers)
    scope = job.scope(config).model_copy(update={"depthwise": False}) if has_depthwise else job.scope(config)
    own_config = LayerwiseCompressorConfig.from_dict({"module_name_configs": names})
    return own_config, config.calibration_samples, scope.describe()


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


def _unstructured(config: LayerwiseCompressorConfig, model: nn.Module, targets: Targets) -> dict[str, Any]:
    """The pruned layers whose zeros may stand anywhere."""
    configs = {name: (layer, config.get_module_config(name, layer)) for name, layer in prunable_layers(model).items()}
    return {
        name: layer
        for name, (layer, layer_config) in configs.items()
        if name in targets and layer_config.n_m_ratio is None
    }


@torch.no_grad()
def _give_back_unseen(weight: torch.Tensor, dense: torch.Tensor, sparsity: float) -> None:
    """Undo the pruning beyond `sparsity`: dense weights of inputs that are zero on every calibration image.

    SparseGPT zeroes all of those, however many they are. No calibration output depends on them, so that the dense
    network's weights, the largest first, are the best guess for other images.
    """
    excess = int((weight == 0).sum()) - round(sparsity * weight.numel())
    unseen = (weight.flatten(1) == 0).all(dim=0).expand(len(weight), -1).reshape(weight.shape)  # [C_out, C_in, h, w]
    candidates = torch.where(unseen, dense.abs(), 0.0).flatten()
    back = candidates.topk(min(max(excess, 0), int(candidates.count_nonzero()))).indices
    weight.view(-1)[back] = dense.flatten()[back]


def _report_progress(view: nn.Sequential, stages: list[str], batches: int, job: PruningJob) -> list[Any]:
    """Each stage runs every batch twice: to collect statistics, and again with its pruned weights."""
    total = 2 * batches * len(stages)
    done = count(1)

    def report(*_: Any) -> None:
        job.progress(next(done), total)

    return [view.get_submodule(stage).register_forward_hook(report) for stage in stages]
