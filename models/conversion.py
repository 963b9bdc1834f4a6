"""From a torch network to a Float16 Core ML package whose zeros are stored as zeros.

The obvious road makes a pruned package unfair to its dense baseline. A model that `coremltools.optimize.torch` has
finalized carries `_COREML_` buffers; converting with them zeroes every weight below 9.77e-4, whatever was asked, and
keeps BatchNorm unfused. So the buffers are removed here, BatchNorm is folded in torch, and the zeros are re-encoded
afterwards.
"""

import coremltools as ct
import coremltools.optimize.coreml as cto
import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from harness.quiet import silenced
from models.layers import prunable_layers
from models.training import IMAGE_MEAN, IMAGE_STD

INPUT_NAME = "image"
OUTPUT_NAME = "logits"

# The smallest magnitude that is not a zero: below Float16's smallest subnormal, 6e-8.
_ZERO_THRESHOLD = 1e-12


def to_coreml(model: nn.Module, image_size: int) -> ct.models.MLModel:
    """An ML program: Float16, iOS17, RGB image [image_size, image_size] in, logits [1, classes] out.

    model takes normalized float32 [N, 3, H, W] and is in eval mode; it is not changed. BatchNorm is folded, and pixels
    are normalized by channel inside the program: an image input has a scale for all channels alone.
    """
    example = torch.zeros(1, 3, image_size, image_size)
    with torch.no_grad():
        traced = torch.jit.trace(_with_pixel_input(_without_metadata(fold_batchnorm(model))), example)
    with silenced():
        return ct.convert(
            traced,
            inputs=[ct.ImageType(INPUT_NAME, shape=example.shape, color_layout=ct.colorlayout.RGB)],
            outputs=[ct.TensorType(OUTPUT_NAME)],
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT16,
            skip_model_load=True,
        )


def fold_batchnorm(model: nn.Module) -> fx.GraphModule:
    """A copy of `model` in which each BatchNorm is folded into its convolution; layers keep their names."""
    folded = fuse(model)
    assert isinstance(folded, fx.GraphModule)
    return folded


@torch.no_grad()
def zero_what_float16_loses(model: nn.Module) -> None:
    """Zero, in place, the weights that are zero in the dense Float16 baseline, where they are below 6e-8.

    Whoever prunes then spends its zeros on them first. Otherwise they come on top: one dead channel of a ResNet50 made
    its layer half a point sparser than asked.
    """
    folded = fold_batchnorm(model)
    for name, layer in prunable_layers(model).items():
        layer.weight[folded.get_submodule(name).weight.half() == 0] = 0


def weight_name(layer: str) -> str:
    """The name coremltools gives the weight of the torch layer `layer` in a Float16 program."""
    return f"{layer.replace('.', '_')}_weight_to_fp16"


def encode_zeros(model: ct.models.MLModel, layers: list[str]) -> ct.models.MLModel:
    """Store the weights of `layers` sparse, whatever their size, changing no value."""
    config = cto.OpThresholdPrunerConfig(threshold=_ZERO_THRESHOLD, minimum_sparsity_percentile=0.0, weight_threshold=0)
    return prune_weights(model, cto.OptimizationConfig(op_name_configs={weight_name(name): config for name in layers}))


def prune_weights(model: ct.models.MLModel, config: cto.OptimizationConfig) -> ct.models.MLModel:
    """`coremltools.optimize.coreml.prune_weights`, without its output on the terminal."""
    with silenced():
        return cto.prune_weights(model, config)


def _with_pixel_input(model: fx.GraphModule) -> fx.GraphModule:
    """Let `model` take RGB pixels in [0, 255]. Done in the graph, so that weights keep their layers' names."""
    # Subtract, then multiply: pixels are exact in Float16, and the mean's rounding error then stays below 0.03 levels.
    model.register_buffer("image_mean", 255 * torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1))
    model.register_buffer("image_scale", 1 / (255 * torch.tensor(IMAGE_STD).view(1, 3, 1, 1)))
    image = next(node for node in model.graph.nodes if node.op == "placeholder")
    users = list(image.users)
    with model.graph.inserting_before(image.next):
        mean, scale = model.graph.get_attr("image_mean"), model.graph.get_attr("image_scale")
        centred = model.graph.call_function(torch.sub, (image, mean))
        normalized = model.graph.call_function(torch.mul, (centred, scale))
    for user in users:
        user.replace_input_with(image, normalized)
    model.recompile()
    return model


def _without_metadata(model: fx.GraphModule) -> fx.GraphModule:
    """Remove, in place, the `_COREML_` buffers that coremltools' torch optimizers leave behind."""
    for module in model.modules():
        for name in [name for name in module._buffers if name.startswith("_COREML_")]:
            del module._buffers[name]
    return model
