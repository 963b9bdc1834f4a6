"""A network's head: how many classes it tells apart, and which layers make its output.

The network runs once on an image, and each value that torch computes remembers what it was computed of. From the output
backwards the first layers are the head, wherever they stand in the network's code: one registered first, a convolution
of 1x1, two that are averaged, one behind dropout or softmax. Seen below autograd, at every operation, so that it holds
under `no_grad`, in TorchScript and in views alike, and no name is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coreml_prune_bench.models.errors import CellFailedError
from coreml_prune_bench.models.layers import PrunableLayer
from coreml_prune_bench.models.plain import replace_module, spelt_out


@dataclass(frozen=True)
class Head:
    """classes: how many numbers the network gives an image. layers: those whose outputs they are, by dotted name.

    others: parameters of that many numbers, outside of such layers, that the output is made with. narrower: layers at
    the output, each with its own number of outputs, which is not that of the classes.
    """

    classes: int
    layers: tuple[str, ...]
    others: tuple[str, ...]
    narrower: dict[str, int]


def head_of(model: nn.Module, image_size: int, name: str) -> Head:
    """The head of `model`, which is on the CPU and left as it was, from a run on one image of that size.

    name: the network's, for errors. Raises CellFailedError where it fails on the image, gives no [1, classes], or
    computes its output of something else than the image.
    """
    flow = _Flow(model)
    image = torch.zeros(1, 3, image_size, image_size)
    layers = {layer: module for layer, module in model.named_modules() if isinstance(module, PrunableLayer)}
    hooks = [module.register_forward_hook(flow.note(layer)) for layer, module in layers.items()]
    try:
        with evaluated(model), spelt_out(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            flow.begin(image)
            with flow:
                output = model(image)
    except Exception as error:  # its code may raise anything
        raise CellFailedError(failure_on(error, name, image_size)) from error
    finally:
        for hook in hooks:
            hook.remove()
    if problem := problem_of(output):
        raise CellFailedError(f"{name}: expected [1, classes] of an image, a number for each class, got {problem}")
    if not flow.sees_image(output):
        raise CellFailedError(
            f"{name}: torch does not see its output computed from the image, so that every image would get the same "
            "answer in Core ML; compute in torch alone, without NumPy, lists or numbers of Python on the way"
        )
    classes = output.shape[1]
    makers, parameters = flow.makers(output, classes)
    owners = {parameter: model.get_submodule(parameter.rpartition(".")[0]) for parameter in parameters}
    makers |= {layer for layer, module in layers.items() if module in owners.values()}
    others = [parameter for parameter, owner in owners.items() if not isinstance(owner, PrunableLayer)]
    outputs = {layer: _outputs(layers[layer]) for layer in sorted(makers, key=list(layers).index)}
    return Head(
        classes,
        tuple(layer for layer, count in outputs.items() if count == classes),
        tuple(sorted(others)),
        {layer: count for layer, count in outputs.items() if count != classes},
    )


def with_classes(
    model: nn.Module, classes: int, image_size: int, name: str, *, rows: Sequence[int] | None = None
) -> nn.Module:
    """`model` with new layers, in place, for its head's, where that is not for so many classes.

    rows: by new class, the old one whose weights it gets; None for those that a new layer has.
    Raises CellFailedError of `head_of`, and where the head cannot be replaced.
    """
    head = head_of(model, image_size, name)
    if head.classes == classes:
        return model
    problem = _irreplaceable(model, head)
    if problem is None:
        for layer in head.layers:
            old = model.get_submodule(layer)
            assert isinstance(old, PrunableLayer)
            model = replace_module(model, old, new_layer(old, classes, rows))
        try:
            found = head_of(model, image_size, name).classes
            problem = None if found == classes else f"with new {' and '.join(head.layers)} it gives {found} numbers"
        except CellFailedError as error:
            problem = f"with new {' and '.join(head.layers)}, {error}"
    if problem is None:
        return model
    raise CellFailedError(
        f"{name} tells {head.classes} classes apart and the data has {classes}, but it cannot get a new head: "
        f"{problem}; let the function that makes it take num_classes"
    )


def problem_of(output: object) -> str:
    """What a network returned of one image in place of [1, classes], and what to do; empty where it did not."""
    if isinstance(output, Tensor):
        if output.ndim != 2 or len(output) != 1:
            return f"{list(output.shape)}"
        return "" if output.is_floating_point() else f"{list(output.shape)} of {output.dtype}; return its logits"
    return f"{type(output).__name__}; return its logits alone, a tensor"


def failure_on(error: Exception, name: str, image_size: int) -> str:
    """What is said of a network whose code raised `error` on one image."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    typed = any(word in reason.lower() for word in ("dtype", "scalar type", "same type"))
    cure = "; networks are measured in float32: let forward turn nothing into another type" if typed else ""
    return f"{name} fails on an image [1, 3, {image_size}, {image_size}]: {reason}{cure}"


def _irreplaceable(model: nn.Module, head: Head) -> str | None:
    if head.others:
        return f"its output is made with {', '.join(head.others)}, of no linear layer or convolution"
    if not head.layers:
        parts = ", ".join(f"{layer} gives {count}" for layer, count in head.narrower.items())
        return f"no layer at its output gives {head.classes} numbers" + (f" ({parts})" if parts else "")
    for layer in head.layers:
        module = model.get_submodule(layer)
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            return f"{layer} is a convolution with groups"
        names = [one for one, weight in model.named_parameters(remove_duplicate=False) if weight is module.weight]
        if shared := [one for one in names if model.get_submodule(one.rpartition(".")[0]) is not module]:
            return f"{layer} shares its weight with {shared[0]}"
    return None


def new_layer(old: PrunableLayer, classes: int, rows: Sequence[int] | None) -> PrunableLayer:
    """One like `old`, of so many classes; rows: as of `with_classes`."""
    new = _new(old, classes)
    if rows is not None:
        with torch.no_grad():
            new.weight.copy_(old.weight[list(rows)])
            if new.bias is not None:
                new.bias.copy_(old.bias[list(rows)] if old.bias is not None else torch.zeros(classes))
    return new


def _new(old: PrunableLayer, classes: int) -> PrunableLayer:
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, classes)
    return nn.Conv2d(
        old.in_channels,
        classes,
        old.kernel_size,  # type: ignore[arg-type]  # of two numbers, as it was made of
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        padding_mode=old.padding_mode,
    )


def _outputs(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.get_parameter("weight").shape[0]


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """In eval mode inside; each module in its own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


# --- what was computed of what


@dataclass(frozen=True, eq=False)
class _Value:
    """What a tensor holds. sees_image: whether it was computed of the image, else of parameters and constants.

    parameters: the names of those that it is computed of, where it is of no image. inputs: what it was computed of,
    with the image in it. used: parameters that came in there, and their shape. layer: whose output it is.
    """

    sees_image: bool = False
    parameters: frozenset[str] = frozenset()
    inputs: tuple[_Value, ...] = ()
    used: tuple[tuple[frozenset[str], tuple[int, ...]], ...] = ()
    layer: str | None = None


_CONSTANT = _Value()


class _Flow(TorchDispatchMode):
    """Notes, by the memory that tensors lie in, what was computed of what: views and what is written are of it too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._values: dict[int, _Value] = {}
        self._kept: list[Any] = []  # memory is kept, so that nothing else gets its address
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._set(parameter, _Value(parameters=self._value(parameter).parameters | {name}))

    def begin(self, image: Tensor) -> None:
        self._set(image, _Value(sees_image=True))

    def note(self, layer: str) -> Callable[..., None]:
        """A forward hook for that layer."""

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and self._value(output).sees_image:
                self._set(output, _Value(sees_image=True, layer=layer))

        return hook

    def sees_image(self, tensor: Tensor) -> bool:
        return self._value(tensor).sees_image

    def makers(self, output: Tensor, classes: int) -> tuple[set[str], set[str]]:
        """The first layers, from the output backwards, and parameters before them with that many rows or columns."""
        layers: set[str] = set()
        others: set[str] = set()
        seen: set[_Value] = set()
        waiting = [self._value(output)]
        while waiting:
            value = waiting.pop()
            if value in seen:
                continue
            seen.add(value)
            if value.layer is not None:
                layers.add(value.layer)
                continue
            made_with = {name for names, shape in value.used if classes in shape for name in names}
            others |= made_with
            if not made_with:
                waiting += value.inputs
        return layers, others

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        taken = () if name.startswith("new_") or name.endswith("_like") else tree_leaves((args, kwargs))
        value = self._computed([tensor for tensor in taken if isinstance(tensor, Tensor)])
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._set(tensor, value)
        return result

    def _computed(self, taken: list[Tensor]) -> _Value:
        values = [self._value(tensor) for tensor in taken]
        inputs = tuple(value for value in values if value.sees_image)
        if not inputs:
            return _Value(parameters=frozenset().union(*(value.parameters for value in values)))
        used = [
            (value.parameters, tuple(tensor.shape))
            for tensor, value in zip(taken, values, strict=True)
            if value.parameters
        ]
        return _Value(sees_image=True, inputs=inputs, used=tuple(used))

    def _value(self, tensor: Tensor) -> _Value:
        place = _place(tensor)
        return _CONSTANT if place is None else self._values.get(place._cdata, _CONSTANT)

    def _set(self, tensor: Tensor, value: _Value) -> None:
        place = _place(tensor)
        if place is not None:
            self._values[place._cdata] = value
            self._kept.append(place)


def _place(tensor: Tensor) -> torch.UntypedStorage | None:
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):  # sparse, and other layouts without
        return None
