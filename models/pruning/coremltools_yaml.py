"""A pruning config as the YAML files that Core ML Tools itself reads, for those who go on without this project."""

from typing import Any, assert_never

import yaml

from models.config import (
    AnyPruningConfig,
    MagnitudePrunerConfig,
    PostTrainingConfig,
    ReconstructionConfig,
    SparseGPTConfig,
)
from models.conversion import weight_name
from models.pruning import magnitude_pruner, post_training, sparse_gpt
from models.pruning.job import Targets
from models.training import total_steps

PRUNING, STORAGE = "pruning.yaml", "storage.yaml"


def coremltools_yaml(config: AnyPruningConfig, targets: Targets, training_images: int) -> dict[str, str]:
    """The files by name: PRUNING, and STORAGE where what is kept is quantized or palettized afterwards.

    targets: the sparsity of each layer, as it was pruned. training_images: how many, on which a schedule depends.
    """
    reader, content = _pruning(config, targets, training_images)
    files = {PRUNING: _written(f"Read by {reader}.from_yaml.", content)}
    if config.quantize_bits is not None or config.palettize_bits is not None:
        reads = "coremltools.optimize.coreml.OptimizationConfig.from_yaml"
        function = "linear_quantize_weights" if config.quantize_bits else "palettize_weights"
        note = f"Read by {reads}, for {function}(..., joint_compression=True) of the pruned model."
        files[STORAGE] = _written(note, _storage(config, targets))
    return files


def _pruning(config: AnyPruningConfig, targets: Targets, training_images: int) -> tuple[str, dict[str, Any]]:
    """Which class reads it, and what."""
    layerwise = "coremltools.optimize.torch.layerwise_compression.LayerwiseCompressorConfig"
    match config:
        case PostTrainingConfig():
            return "coremltools.optimize.coreml.OptimizationConfig", post_training.as_coremltools(config, targets)
        case SparseGPTConfig():
            return layerwise, _with_samples(config, targets)
        case ReconstructionConfig():  # Core ML Tools has no such algorithm
            return f"the zeros alone; fitting is this project's. {layerwise}", _with_samples(config.start(), targets)
        case MagnitudePrunerConfig():
            steps = total_steps(training_images, config.training)
            reader = "coremltools.optimize.torch.pruning.MagnitudePrunerConfig"
            return reader, magnitude_pruner.as_coremltools(config, targets, steps)
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
