"""From a torch network to a Float16 Core ML package whose zeros are stored as zeros.

The obvious road makes a pruned package unfair to its dense baseline. A model that `coremltools.optimize.torch` has
finalized carries `_COREML_` buffers; converting with them zeroes every weight below 9.77e-4, whatever was asked, and
keeps BatchNorm unfused. So the buffers are removed here, BatchNorm is folded in torch, and the zeros are re-encoded
afterwards. What is kept of a weight can be quantized or palettized on top, in the joint forms of iOS18.
"""

from collections.abc import Iterable
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.coremltools_fixes import mended_converter
from coreml_prune_bench.models.errors import BenchError, CellFailedError
from coreml_prune_bench.models.layers import names_by_weight, prunable_layers
from coreml_prune_bench.models.plain import spelt_out
from coreml_prune_bench.models.quiet import silenced
from coreml_prune_bench.models.training import IMAGE_MEAN, IMAGE_STD
from coreml_prune_bench.models.weight_names import WEIGHT, called_alike, marked, marks_in, quantized_name, weight_name

INPUT_NAME = "image"
OUTPUT_NAME = "logits"

# The smallest magnitude that is not a zero: below Float16's smallest subnormal, 6e-8.
_ZERO_THRESHOLD = 1e-12

_SCALE = f"_COREML_/{WEIGHT}/quantization_scale"
"""Where SparseGPT leaves the scales [C_out, 1] of a layer that it has quantized to 8 bits."""


def to_coreml(model: nn.Module, image_size: int, *, joint: bool = False) -> ct.models.MLModel:
    """An ML program: Float16, iOS17, RGB image [image_size, image_size] in, logits [1, classes] out.

    model takes normalized float32 [N, 3, H, W] and is in eval mode; it is not changed. BatchNorm is folded, and pixels
    are normalized by channel inside the program: an image input has a scale for all channels alone.
    joint: for iOS18, whose weights can be sparse and of few bits. Layers that SparseGPT has quantized are stored as it
    quantized them, dense.
    Each layer's weight has a name of its own, that of its entry in `weight_parameters(model)`.
    """
    example = torch.zeros(1, 3, image_size, image_size)
    folded = fold_batchnorm(model, image_size)
    scales = folded_scales(model, folded)
    without_metadata(folded)
    parameters = weight_parameters(model)
    for name, parameter in parameters.items():
        layer = folded.get_submodule(name)
        if parameter != WEIGHT and WEIGHT in layer._parameters:  # else made of other tensors, as weight_norm makes it
            _rename_weight(layer, parameter)
    for name, scale in scales.items():
        _store_quantized(folded.get_submodule(name), scale, parameters.get(name, WEIGHT))
    with silenced(), mended_converter(), spelt_out(), torch.no_grad():
        try:
            # The check runs the network again, and takes attention's two ways to compute the same for a difference.
            traced = torch.jit.trace(_with_pixel_input(_without_backward_hooks(folded)), example, check_trace=False)
            return ct.convert(
                traced,
                inputs=[ct.ImageType(INPUT_NAME, shape=example.shape, color_layout=ct.colorlayout.RGB)],
                outputs=[ct.TensorType(OUTPUT_NAME)],
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS18 if joint else ct.target.iOS17,
                compute_precision=ct.precision.FLOAT16,
                skip_model_load=True,
                pass_pipeline=_passes(folded),
            )
        except (BenchError, MemoryError, OSError):
            raise
        except Exception as error:  # of the network's own code, or of operations that Core ML Tools does not know
            raise CellFailedError(_not_convertible(error)) from error


@torch.no_grad()
def zero_what_float16_loses(model: nn.Module, image_size: int) -> None:
    """Zero, in place, the weights that are zero in the dense Float16 baseline, where they are below 6e-8.

    Whoever prunes then spends its zeros on them first. Otherwise they come on top: one dead channel of a ResNet50 made
    its layer half a point sparser than asked.
    """
    folded = fold_batchnorm(model, image_size)
    for name, layer in prunable_layers(model).items():
        layer.weight[folded.get_submodule(name).get_parameter("weight").half() == 0] = 0


def quantization_scale(layer: nn.Module) -> Tensor | None:
    """The scales [C_out, 1] with which SparseGPT has quantized this layer of a network; None if it has not."""
    return dict(layer.named_buffers(recurse=False)).get(_SCALE)


def folded_scales(model: nn.Module, folded: nn.Module) -> dict[str, Tensor]:
    """The scales [C_out, 1] of the layers that SparseGPT has quantized, with BatchNorm folded into them."""
    scales = {}
    for name, layer in model.named_modules():
        if (scale := quantization_scale(layer)) is not None:
            weights = (network.get_submodule(name).get_parameter("weight") for network in (model, folded))
            before, after = (weight.detach().abs().flatten(1).amax(1, keepdim=True) for weight in weights)
            # Without their sign: quantized values have one.
            scales[name] = scale * torch.where(before > 0, after / before, 1.0)
    return scales


def weight_parameters(model: nn.Module) -> dict[str, str]:
    """By layer: the name with which `to_coreml` converts its weight, a mark where "weight" does not tell."""
    layers = prunable_layers(model)
    # All names, also those of a tensor that has several: the tracer may take any of them.
    tensors = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    tensors += [name for name, _ in model.named_buffers(remove_duplicate=False)]
    alike = called_alike(layers, tensors)
    return {name: marked(name) if name in alike else WEIGHT for name in layers}


def stored_parameters(program: ct.models.MLModel, layers: Iterable[str]) -> dict[str, str]:
    """By layer: the parameter's name under which a program that `to_coreml` converted has its weight."""
    marks = marks_in(output.name for operation in _operations(program) for output in operation.outputs)
    return {name: marked(name) if marked(name) in marks else WEIGHT for name in layers}


def encode_zeros(model: ct.models.MLModel, layers: list[str]) -> ct.models.MLModel:
    """Store the weights of `layers` sparse, whatever their size, changing no value; quantized ones, jointly."""
    config = cto.OpThresholdPrunerConfig(threshold=_ZERO_THRESHOLD, minimum_sparsity_percentile=0.0, weight_threshold=0)
    parameters = stored_parameters(model, layers)
    if parameters and _holds_quantized(model):
        quantized = {quantized_name(name, parameter): config for name, parameter in parameters.items()}
        with silenced():
            return cto.prune_weights(model, cto.OptimizationConfig(op_name_configs=quantized), joint_compression=True)
    own = {weight_name(name, parameter): config for name, parameter in parameters.items()}
    return prune_weights(model, cto.OptimizationConfig(op_name_configs=own))


def prune_weights(model: ct.models.MLModel, config: cto.OptimizationConfig) -> ct.models.MLModel:
    """`coremltools.optimize.coreml.prune_weights`, without its output on the terminal."""
    with silenced():
        return cto.prune_weights(model, config)


def quantize_kept(model: ct.models.MLModel, layers: list[str], bits: int) -> ct.models.MLModel:
    """Quantize, symmetrically and by output channel, what the sparse weights of `layers` keep: 4 or 8 bits a value."""
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype=f"int{bits}", weight_threshold=0)
    with silenced(), np.errstate(invalid="ignore", divide="ignore"):  # channels that are zero as a whole
        return cto.linear_quantize_weights(model, _of_sparse(model, layers, config), joint_compression=True)


def palettize_kept(model: ct.models.MLModel, layers: list[str], bits: int) -> ct.models.MLModel:
    """Palettize what the sparse weights of `layers` keep: indices of so many bits into a table for each layer.

    Tables are found by k-means among the kept values alone. Core ML Tools' own mode for that clusters the zeros as
    well, which the mask holds already, and the values one by one instead of each distinct one with its frequency.
    """

    def table(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _table(weight, 1 << bits)

    config = cto.OpPalettizerConfig(mode="custom", lut_function=table, weight_threshold=0)
    with silenced():
        return cto.palettize_weights(model, _of_sparse(model, layers, config), joint_compression=True)


def _passes(model: nn.Module) -> ct.PassPipeline:
    """Core ML Tools' own, without those that would give each of several layers of one weight another one."""
    passes = ct.PassPipeline.DEFAULT
    if any(len(names) > 1 for names in names_by_weight(model)):
        passes.remove_passes({"common::fuse_conv_batchnorm", "common::fuse_conv_scale"})
    return passes


_CURES = {
    "dynamo-optimized": "leave torch.compile out of the network's code",
    "'pythonop'": "leave torch.utils.checkpoint and a torch.autograd.Function of your own out of forward in eval mode",
    "that requires grad as a constant": "forward calls another network than its own copy; make what is in place of "
    "forward a method of a class",
    "not consistent between torch ir and state_dict": "it has weights that are no numbers (NaN)",
    "Tracer cannot infer type": "return the logits alone, a tensor",
}
"""By a part of the error: what can be done about it."""


def _not_convertible(error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    cure = next((cure for part, cure in _CURES.items() if part in reason), "let forward compute it in another way")
    return f"torch.jit.trace and Core ML Tools cannot convert it: {type(error).__name__}: {reason[:400]}; {cure}"


def _without_backward_hooks(model: nn.Module) -> nn.Module:
    """Remove, in place, hooks on gradients: there are none, and the tracer refuses them."""
    for module in model.modules():
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
        module._is_full_backward_hook = None
    return model


def _with_pixel_input(model: nn.Module) -> nn.Module:
    """Let `model` take RGB pixels in [0, 255], before what else it hooks to its call.

    In a module around it, weights would have other names.
    """
    # Subtract, then multiply: pixels are exact in Float16, and the mean's rounding error then stays below 0.03 levels.
    mean = 255 * torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    scale = 1 / (255 * torch.tensor(IMAGE_STD).view(1, 3, 1, 1))

    def normalized(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return (inputs[0] - mean) * scale

    model.register_forward_pre_hook(normalized, prepend=True)
    return model


def without_metadata(model: nn.Module) -> nn.Module:
    """Remove, in place, the `_COREML_` buffers that coremltools' torch optimizers leave behind."""
    for module in model.modules():
        for name, _ in list(module.named_buffers(recurse=False)):
            if name.startswith("_COREML_"):
                del module._buffers[name]
    return model


def _rename_weight(layer: nn.Module, parameter: str) -> None:
    """Have the tracer see the layer's weight as the parameter so called; the layer's code goes on with `weight`."""
    layer.register_parameter(parameter, layer._parameters.pop(WEIGHT))

    def weight(self: nn.Module) -> Tensor:
        return self.get_parameter(parameter)

    kind = type(layer)
    untraced = torch.jit.unused(weight)  # or the tracer would compile it
    layer.__class__ = type(kind.__name__, (kind,), {WEIGHT: property(untraced)})


def _store_quantized(layer: nn.Module, scale: Tensor, parameter: str) -> None:
    """Have the converter store the weight in 8 bits with these scales [C_out, 1]: the way Core ML Tools documents."""
    layer.register_buffer(f"_COREML_/{parameter}/compression_type", torch.tensor([3]))  # quantization
    layer.register_buffer(f"_COREML_/{parameter}/quantization_n_bits", torch.tensor(8))
    layer.register_buffer(f"_COREML_/{parameter}/quantization_scale", scale)


def _holds_quantized(model: ct.models.MLModel) -> bool:
    return any(operation.type == "constexpr_blockwise_shift_scale" for operation in _operations(model))


def _operations(model: ct.models.MLModel) -> Iterable[Any]:
    (main,) = model.get_spec().mlProgram.functions.values()
    (block,) = main.block_specializations.values()
    return block.operations


def _of_sparse(model: ct.models.MLModel, layers: list[str], config: "cto.OpCompressorConfig") -> cto.OptimizationConfig:
    parameters = stored_parameters(model, layers)
    own = {f"{weight_name(name, parameter)}_sparsified": config for name, parameter in parameters.items()}
    return cto.OptimizationConfig(op_name_configs=own)


def _table(weight: np.ndarray, entries: int) -> tuple[np.ndarray, np.ndarray]:
    """A table, float16 [entries], for the non-zeros of a weight, and the index of each element, uint8 [elements]."""
    values, positions, counts = np.unique(weight, return_inverse=True, return_counts=True)
    counts = np.where(values == 0, 0, counts)
    kept = np.flatnonzero(counts)
    table, indices = np.zeros(entries, weight.dtype), np.zeros(len(values), np.uint8)
    if len(kept) <= entries:
        table[: len(kept)], indices[kept] = values[kept], np.arange(len(kept))
    else:
        means = KMeans(entries, n_init=1, random_state=0).fit(values[kept, None].astype(np.float64), None, counts[kept])
        table[:], indices[kept] = means.cluster_centers_[:, 0], means.labels_
    return table, indices[positions.reshape(-1)]
