"""A pruning config as the YAML files that Core ML Tools itself reads, for those who go on without this project."""

from typing import Any, assert_never

import yaml

from coreml_prune_bench.models.config import (
    AnyPruningConfig,
    MagnitudePrunerConfig,
    PostTrainingConfig,
    ReconstructionConfig,
    SparseGPTConfig,
)
from coreml_prune_bench.models.conversion import weight_name
from coreml_prune_bench.models.pruning import magnitude_pruner, post_training, sparse_gpt
from coreml_prune_bench.models.pruning.task import Targets
from coreml_prune_bench.models.training import total_steps

PRUNING, STORAGE = "pruning.yaml", "storage.yaml"


def coremltools_yaml(config: AnyPruningConfig, targets: Targets, training_images: int) -> dict[str, str]:
    """The files by name: PRUNING, and STORAGE where what is kept is quantized or palettized afterwards.

    targets: the sparsity of each layer, as it was pruned. training_images: how many, on which a schedule depends.
    """
    note, content = _pruning(config, targets, training_images)
    files = {PRUNING: _written(note, content)}
    if config.quantize_bits is not None or config.palettize_bits is not None:
        reads = "coremltools.optimize.coreml.OptimizationConfig.from_yaml"
        function = "linear_quantize_weights" if config.quantize_bits else "palettize_weights"
        note = f"Read by {reads}, for {function}(..., joint_compression=True) of a pruned model converted for iOS18."
        files[STORAGE] = _written(note, _storage(config, targets))
    return files


def _pruning(config: AnyPruningConfig, targets: Targets, training_images: int) -> tuple[str, dict[str, Any]]:
    """What to know of the file, and what is in it."""
    layerwise = (
        "Read by coremltools.optimize.torch.layerwise_compression.LayerwiseCompressorConfig.from_yaml; it takes "
        "networks that are nn.Sequential, and counts batches as samples: here, of one image."
    )
    match config:
        case PostTrainingConfig():
            note = "Read by coremltools.optimize.coreml.OptimizationConfig.from_yaml, for one with BatchNorm folded."
            return note, post_training.as_coremltools(config, targets)
        case SparseGPTConfig():
            samples = config.batchnorm_samples
            again = f" Afterwards BatchNorm was measured again on {samples} images." if samples else ""
            return layerwise + again, _with_samples(config, targets)
        case ReconstructionConfig():
            note, content = _pruning(config.start(), targets, training_images)
            return f"The zeros alone: Core ML Tools has nothing that fits the blocks afterwards. {note}", content
        case MagnitudePrunerConfig():
            steps = total_steps(training_images, config.training)
            note = f"Read by coremltools.optimize.torch.pruning.MagnitudePrunerConfig.from_yaml, for {steps} steps."
            return note, magnitude_pruner.as_coremltools(config, targets, steps)
        case _:
            assert_never(config)


def _with_samples(config: SparseGPTConfig, targets: Targets) -> dict[str, Any]:
    return {**sparse_gpt.as_coremltools(config, targets), "calibration_nsamples": config.calibration_samples}


def _storage(config: AnyPruningConfig, targets: Targets) -> dict[str, Any]:
    if config.quantize_bits is not None:
        kind = "OpLinearQuantizerConfig"
        own: dict[str, Any] = {"mode": "linear_symmetric", "dtype": f"int{config.quantize_bits}"}
    else:
        kind, own = "OpPalettizerConfig", {"mode": "kmeans", "nbits": config.palettize_bits}
    layers = {f"{weight_name(name)}_sparsified": {**own, "weight_threshold": 0} for name in targets}
    return {"config_type": kind, "op_name_configs": layers}


def _written(note: str, content: dict[str, Any]) -> str:
    return f"# {note}\n{yaml.safe_dump(_plain(content), sort_keys=False)}"


def _plain(value: Any) -> Any:
    """Without tuples, which YAML has no word for."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
