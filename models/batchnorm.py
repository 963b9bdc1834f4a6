"""Folding BatchNorm into the convolutions before it, in torch and before any conversion."""

from copy import deepcopy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from coreml_prune_bench.models.plain import replace_module
from coreml_prune_bench.models.tracing import after_batchnorm, observe


def fold_batchnorm(model: nn.Module, image_size: int) -> nn.Module:
    """A copy of `model` in which each BatchNorm that can be is folded into its convolution; layers keep their names.

    The network runs once on an image of that size, which shows what follows what, whether it can be traced or not.
    """
    foldable = observe(model, image_size).foldable
    folded = deepcopy(model)  # after the run: what a network remembers of a training run cannot be copied
    for convolution_name, norm_name in foldable:
        convolution, norm = folded.get_submodule(convolution_name), folded.get_submodule(norm_name)
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        folded = replace_module(folded, norm, after_batchnorm(norm))
    return folded
