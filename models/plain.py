"""Networks as what is done with them here needs them: without wrappers, with weights that are weights, spelt out.

torch has several ways to say of a network how it is run (compiled, on several devices) or how a weight is computed
(weight_norm, spectral_norm, masks). Pruning changes weights, and conversion records operations: both need the network
itself, and weights that nothing computes again.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils import prune as masks
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim.swa_utils import AveragedModel


@contextmanager
def spelt_out() -> Iterator[None]:
    """Inside, torch's attention and transformer layers run step by step.

    Where no gradient is asked for they else take a way of their own, as one operation: it calls no layers, so that none
    is seen, and Core ML Tools does not know it.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def code_as_written() -> Iterator[None]:
    """Inside, `torch.compile` and `torch.jit.script` leave code as it is: in what they make of it nothing can be seen.

    Networks that `torch.compile` is given it wraps as ever; `unwrapped` takes them out.
    """
    compile_, script = torch.compile, torch.jit.script

    def uncompiled(model: Any = None, **options: Any) -> Any:
        if model is None:  # a decorator with options
            return lambda function: uncompiled(function, **options)
        return compile_(model, **options) if isinstance(model, nn.Module) else model

    def unscripted(code: Any, *_: Any, **options: Any) -> Any:
        return code

    torch.compile, torch.jit.script = uncompiled, unscripted  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile, torch.jit.script = compile_, script


def unwrapped(model: nn.Module) -> nn.Module:
    """`model`, in place, without what DataParallel, torch.compile and the like have put around it or parts of it."""
    dynamo = sys.modules.get("torch._dynamo")  # slow to import, and without it nothing is compiled
    for module in list(model.modules()):
        if isinstance(module, DataParallel | DistributedDataParallel | AveragedModel):
            model = replace_module(model, module, module.module)
        elif dynamo is not None and isinstance(module, dynamo.OptimizedModule):
            model = replace_module(model, module, module.get_submodule("_orig_mod"))
    return model


def problem_of_network(model: nn.Module) -> str | None:
    """Why nothing can be done with a network that a function of the user returned, and the cure, in one line."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and next(module.parameters(), None) is not None:
            what = f"{name} is" if name else "it is"
            return f"{what} TorchScript, whose layers cannot be seen; return the network that torch.jit made it of"
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor) or value.is_quantized:
            what = "quantized" if isinstance(value, torch.Tensor) else f"{type(value).__name__}, no tensor"
            return f"{name} is {what}; return the network before it is quantized, with weights that are numbers"
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            return (
                f"{name} has no shape yet, of a lazy layer; call the network once before returning it, on an image of "
                "the data's size: net(torch.zeros(1, 3, 224, 224))"
            )
        if tensor.is_meta:
            return (
                f"{name} is on the device meta, without values; make the network on the CPU, or "
                'net.to_empty(device="cpu") and load its weights'
            )
    return None


def outside_inference(model: nn.Module) -> nn.Module:
    """`model`, in place, whose tensors were made under `torch.inference_mode`, with copies that can be written to."""
    copies: dict[int, Any] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and tensor.is_inference():
                    if id(tensor) not in copies:
                        copy = tensor.detach().clone()
                        is_parameter = isinstance(tensor, nn.Parameter)
                        copies[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
                    held[name] = copies[id(tensor)]
    return model


def with_plain_weights(model: nn.Module) -> nn.Module:
    """`model`, in place, with the weights that its parametrizations, norms and masks compute now, as parameters.

    weight_norm and spectral_norm, the older and the newer, orthogonal and the user's own, torch.nn.utils.prune: zeros
    put into a weight that is computed again would be none. Whoever trains it trains these weights. The elements of each
    parameter then lie in memory in their order.
    """
    for module in model.modules():
        parametrizations = getattr(module, "parametrizations", None)
        if parametrize.is_parametrized(module) and isinstance(parametrizations, nn.ModuleDict):
            parametrizations.eval()  # spectral_norm takes a step further in training
            for name in list(parametrizations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for hook in list(module._forward_pre_hooks.values()):
            for kind, remove, name in _COMPUTING:
                if isinstance(hook, kind):
                    remove(module, getattr(hook, name))
        # torch 2.7 leaves this one, which looks for the older weights in every state dict.
        for number, loading in list(module._load_state_dict_pre_hooks.items()):
            if isinstance(getattr(loading, "hook", loading), SpectralNormLoadStateDictPreHook):
                del module._load_state_dict_pre_hooks[number]
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model


_COMPUTING: tuple[tuple[type, Callable[[nn.Module, str], object], str], ...] = (
    (WeightNorm, remove_weight_norm, "name"),
    (SpectralNorm, remove_spectral_norm, "name"),
    (masks.BasePruningMethod, masks.remove, "_tensor_name"),
)
"""Hooks that compute a weight before each call: what takes one out, and where it has the weight's name."""


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """`model` with `new` wherever it has `old`, in place: a module can have several names, and be the whole."""
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
    return new if model is old else model
