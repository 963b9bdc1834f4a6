"""A pruning config as the YAML files that Core ML Tools itself reads, for those who go on without this project."""

from typing import Any

import yaml

from coreml_prune_bench.models.pruning.algorithm import algorithm_of
from coreml_prune_bench.models.pruning.config import PruningConfig
from coreml_prune_bench.models.pruning.task import Targets
from coreml_prune_bench.models.weight_names import called_alike, weight_name

PRUNING, STORAGE = "pruning.yaml", "storage.yaml"


def coremltools_yaml(config: PruningConfig, targets: Targets, training_images: int) -> dict[str, str]:
    """The files by name: PRUNING, and STORAGE where what is kept is quantized or palettized afterwards.

    targets: the sparsity of each layer, as it was pruned. training_images: how many, on which a schedule depends.
    Layers whose weights a program would call the same are left out of files that name weights, which say so.
    """
    note, content = algorithm_of(config).as_coremltools(config, targets, training_images)
    alike = [name for name in targets if name in called_alike(targets, ())]
    files = {PRUNING: _written(*_without(alike, note, content))}
    if config.quantize_bits is not None or config.palettize_bits is not None:
        reads = "coremltools.optimize.coreml.OptimizationConfig.from_yaml"
        function = "linear_quantize_weights" if config.quantize_bits else "palettize_weights"
        note = f"Read by {reads}, for {function}(..., joint_compression=True) of a pruned model converted for iOS18."
        files[STORAGE] = _written(*_without(alike, note, _storage(config, targets)))
    return files


def _storage(config: PruningConfig, targets: Targets) -> dict[str, Any]:
    if config.quantize_bits is not None:
        kind = "OpLinearQuantizerConfig"
        own: dict[str, Any] = {"mode": "linear_symmetric", "dtype": f"int{config.quantize_bits}"}
    else:
        kind, own = "OpPalettizerConfig", {"mode": "kmeans", "nbits": config.palettize_bits}
    layers = {f"{weight_name(name)}_sparsified": {**own, "weight_threshold": 0} for name in targets}
    return {"config_type": kind, "op_name_configs": layers}


def _without(layers: list[str], note: str, content: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Without the weights of layers that Core ML Tools tells apart by their order in the program, unknown here."""
    if not layers or "op_name_configs" not in content:
        return note, content
    left_out = {f"{weight_name(name)}{ending}" for name in layers for ending in ("", "_sparsified")}
    kept = {name: own for name, own in content["op_name_configs"].items() if name not in left_out}
    note += f" {', '.join(layers)} are left out: their weights would have one name. Add them by those in your program."
    return note, content | {"op_name_configs": kept}


def _written(note: str, content: dict[str, Any]) -> str:
    return f"# {note}\n{yaml.safe_dump(_plain(content), sort_keys=False)}"


def _plain(value: Any) -> Any:
    """Without tuples, which YAML has no word for."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
