"""Core ML Tools' own SparseGPT on a network, all layers but depthwise ones by one config: what ours is held against."""

import re
from collections.abc import Sequence

from coremltools.optimize.torch.layerwise_compression import (
    LayerwiseCompressor,
    LayerwiseCompressorConfig,
    ModuleSparseGPTConfig,
)
from torch import Tensor, nn

from coreml_prune_bench.models.layers import is_depthwise, prunable_layers

CONFIG = ModuleSparseGPTConfig(target_sparsity=0.5, weight_dtype="float32")


def prune_by_coremltools(model: nn.Module, view: nn.Sequential, batches: Sequence[Tensor]) -> None:
    """In place. view: the network as stages."""
    names = {name: None if is_depthwise(layer) else CONFIG for name, layer in prunable_layers(model).items()}
    config = LayerwiseCompressorConfig(
        layers=[re.escape(name) for name, _ in view.named_children()],
        module_name_configs={rf"[^.]+\.(?:{re.escape(name)})": one for name, one in names.items()},
        calibration_nsamples=len(batches),
    )
    LayerwiseCompressor(view, config).compress(list(batches), device="cpu", inplace=True)
