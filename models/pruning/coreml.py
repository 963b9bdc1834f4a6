"""A pruned network as a sparse Core ML program."""

from typing import TYPE_CHECKING

from coreml_prune_bench.models.conversion import encode_zeros, palettize_kept, quantize_kept, to_coreml
from coreml_prune_bench.models.pruning.task import Pruned

if TYPE_CHECKING:
    import coremltools as ct


def to_sparse_coreml(pruned: Pruned) -> "ct.models.MLModel":
    """An ML program as of `to_coreml`, the zeros of pruned layers stored as such, what they keep as the config says."""
    config, layers = pruned.config, list(pruned.targets)
    program = to_coreml(pruned.model, pruned.image_size, joint=config.joint_bits is not None)
    program = pruned.prune_program(program) if pruned.prune_program else encode_zeros(program, layers)
    if config.quantize_bits is not None:
        program = quantize_kept(program, layers, config.quantize_bits)
    if config.palettize_bits is not None:
        program = palettize_kept(program, layers, config.palettize_bits)
    return program
