"""One block that is fitted to what the dense network's computes, and how far it is from that."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from tempfile import NamedTemporaryFile
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from coreml_prune_bench.models.layers import names_by_weight
from coreml_prune_bench.models.processors import multiply_bfloat16
from coreml_prune_bench.models.pruning.blockwise_reconstruction.config import ReconstructionConfig
from coreml_prune_bench.models.pruning.sparse_gpt.hessians import rows_as_inputs

Masks = Mapping[str, Tensor]
"""By the dotted name of a pruned layer: 1 where a weight stays and 0 where it went, in the weight's shape."""

RUN_BATCH = 32
"""Images that pass a block together where nothing is fitted, at most."""

_ROWS_AT_ONCE = 128
"""Classes of a step."""

_POSITIONS = 24 * 14 * 14
_FEWEST_IMAGES = 4
"""As many images at once as have this many positions in the block's input, but not fewer than that. More of the large
maps near a network's input cost time: in a step they gained nothing, and in a run they leave a processor's cache."""


@dataclass(frozen=True)
class BlockError:
    """How far a block's output is from the dense one's: mean squared difference over the variance of the dense one.

    fitted: on the images that the block is fitted to; held_back: on the others. Each before and after.
    """

    block: str
    fitted_before: float
    fitted_after: float
    held_back_before: float
    held_back_after: float

    def describe(self) -> str:
        return (
            f"{self.block}: error {self.fitted_before:.4f} -> {self.fitted_after:.4f}, "
            f"held back {self.held_back_before:.4f} -> {self.held_back_after:.4f}"
        )


@dataclass(frozen=True)
class Calibration:
    """What the network is shown: normalized, Float16 [N, 3, H, W].

    The first `plain` are images as evaluation sees them; augmented views of the same ones follow, and then, as
    evaluation sees them, the `held_back` others that are not fitted to.
    """

    images: Tensor
    plain: int
    held_back: int


@dataclass(frozen=True)
class Runner:
    """Runs modules where nothing is fitted: what they make of Float16 [N, ...], in Float16 on the CPU or on disk."""

    device: torch.device
    on_disk: bool

    @torch.no_grad()
    def __call__(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """All outputs, [N, ...]."""
        outputs = None
        # Of a GPU few images use a part alone.
        size = _images_at_once(inputs, RUN_BATCH) if self.device.type == "cpu" else RUN_BATCH
        for batch, part in zip(torch.arange(len(inputs)).split(size), self.parts(module, inputs, size), strict=True):
            if outputs is None:
                outputs = self._empty(len(inputs), part)
            outputs[batch] = part.half().cpu()
        assert outputs is not None, "there is an image at least"
        return outputs

    @torch.no_grad()
    def parts(self, module: nn.Module, inputs: Tensor, size: int = RUN_BATCH) -> Iterator[Tensor]:
        """The outputs, Float32 on the device, of one batch of `size` images after the other."""
        for batch in inputs.split(size):
            yield module(batch.to(self.device).float())

    def _empty(self, images: int, part: Tensor) -> Tensor:
        """For the outputs of all images, laid out as `part` is: to lay maps out anew takes longer than to copy them."""
        channels_last = part.ndim == 4 and part.is_contiguous(memory_format=torch.channels_last)
        shape = (images, *(part.permute(0, 2, 3, 1) if channels_last else part).shape[1:])
        outputs = self._on_disk(shape) if self.on_disk else torch.empty(shape, dtype=torch.float16)
        return outputs.permute(0, 3, 1, 2) if channels_last else outputs

    @staticmethod
    def _on_disk(shape: tuple[int, ...]) -> Tensor:
        with NamedTemporaryFile(prefix="activations-") as file:  # the map outlives the file's name
            return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=torch.float16).view(shape)


class Block:
    """One stage that is fitted, in place.

    keep: masks of its own weights. inputs, targets: what goes in and should come out for the calibration's images,
    Float16 [N, ...]. class_rows: the dense weights [classes, ...], among those, that the classes' numbers come from.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        keep: Masks,
        inputs: Tensor,
        targets: Tensor,
        calibration: Calibration,
        run: Runner,
        *,
        class_rows: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        self._name = name
        self._module = module
        self._keep = {name: mask.to(run.device) for name, mask in keep.items()}
        self._inputs = inputs
        self._targets = targets
        self._plain = slice(0, calibration.plain)
        self._held_back = slice(len(inputs) - calibration.held_back, None)
        self._run = run
        self._class_rows = {name: _ClassRows(weight) for name, weight in class_rows.items()}
        self._weights = weights_of(module)
        self._before = self._error(self._plain), self._error(self._held_back)

    def fit(
        self, config: ReconstructionConfig, order_seed: tuple[int, ...], *, in_bfloat16: bool = False
    ) -> Iterator[int]:
        """Fit the weights that stay, and nothing else; yields the number of steps that are done.

        The block is fitted once with each learning rate. It keeps the weights with which it errs least on the images
        held back, class rows counted as in the fit: what it is not fitted with if no rate helps.
        """
        unfitted = best = self._copies()
        least = self._before[1] + self._rows_error(config)
        variance = _variance(self._targets[self._plain])
        # Zero: a dead block, or a head of zeros: the same for every image, and nothing to fit to.
        for number, rate in enumerate(config.learning_rates if variance else ()):
            self._set(unfitted)
            order = np.random.default_rng(order_seed)
            for step in self._walk(config, rate, variance, order, in_bfloat16=in_bfloat16):
                yield config.steps * number + step
            held_back = self._error(self._held_back) + self._rows_error(config)
            if held_back < least:
                best, least = self._copies(), held_back
        self._set(best)

    def result(self) -> tuple[Tensor, BlockError]:
        """What comes out, for the next block, and how far it is from what should."""
        outputs = self._run(self._module, self._inputs)
        after = [relative_error(outputs[part], self._targets[part]) for part in (self._plain, self._held_back)]
        return outputs, BlockError(self._name, self._before[0], after[0], self._before[1], after[1])

    def _walk(
        self,
        config: ReconstructionConfig,
        rate: float,
        variance: float,
        order: np.random.Generator,
        *,
        in_bfloat16: bool,
    ) -> Iterator[int]:
        # A block that is nearly right needs small steps: the same ones that mend a bad block made a good one worse.
        rate *= math.sqrt(min(self._before[0], 1.0))
        groups = [{"params": [weight], "lr": rate * _size(weight)} for weight in self._weights.values()]
        optimizer = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
        size = _images_at_once(self._inputs, config.batch_size)
        batches = _batches(self._held_back.start, size, order)
        for step, batch in zip(range(config.steps), batches, strict=False):
            inputs, targets = (values[batch].to(self._run.device).float() for values in (self._inputs, self._targets))
            with torch.autocast(self._run.device.type, torch.bfloat16, enabled=in_bfloat16):
                outputs = self._module(inputs)
            loss = functional.mse_loss(outputs.float(), targets) / variance
            for name, rows in self._class_rows.items():
                loss = loss + config.class_rows * rows.error(self._weights[name], rows.some(order))
            gradients = torch.autograd.grad(loss, list(self._weights.values()))
            for (name, weight), gradient in zip(self._weights.items(), gradients, strict=True):
                weight.grad = gradient * self._keep[name] if name in self._keep else gradient
            optimizer.step()
            schedule.step()
            yield step + 1
        optimizer.zero_grad()

    @torch.no_grad()
    def _rows_error(self, config: ReconstructionConfig) -> float:
        """Of all class rows, by the share that they count with."""
        errors = (float(rows.error(self._weights[name])) for name, rows in self._class_rows.items())
        return config.class_rows * sum(errors)

    def _copies(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def _set(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(weights[name])

    def _error(self, part: slice) -> float:
        return relative_error(self._run(self._module, self._inputs[part]), self._targets[part])


class _ClassRows:
    """What the layer that gives the classes makes of its own rows, of which each stands for images of its class.

    A few hundred images show a few of the classes; a fit to them alone gives the others away.
    """

    def __init__(self, dense: Tensor) -> None:
        self._dense = dense.flatten(1)  # [classes, inputs]
        self._rows = rows_as_inputs(dense)
        self._variance = float((self._dense @ self._rows.t()).var())

    def some(self, order: np.random.Generator) -> Tensor:
        """Numbers of the rows that a step sees."""
        return torch.from_numpy(order.permutation(len(self._rows))[:_ROWS_AT_ONCE])

    def error(self, weight: Tensor, chosen: Tensor | slice = slice(None)) -> Tensor:
        """Mean squared difference over the variance of what is expected, of the rows that are chosen."""
        if not self._variance:
            return weight.new_zeros(())
        return ((weight.flatten(1) - self._dense) @ self._rows[chosen].t()).square().mean() / self._variance


def fits_in_bfloat16(network: nn.Module, device: torch.device) -> bool:
    """Whether that is faster than Float32: on a CPU with units for it, in a network without grouped convolutions.

    Depthwise ones take longer in bfloat16, forward and back, and those of 32 groups as long. What else there is in a
    network with such ones brings no time, and what is fitted in bfloat16 there may lose accuracy.
    """
    grouped = any(getattr(layer, "groups", 1) > 1 for layer in network.modules())
    return device.type == "cpu" and not grouped and multiply_bfloat16()


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Mean squared difference over the variance of what is expected, both Float16 [N, ...]."""
    difference = fmean(float(functional.mse_loss(f.float(), e.float())) for f, e in zip(found, expected, strict=True))
    variance = _variance(expected)
    if variance == 0:
        return math.inf if difference else 0.0
    return difference / variance


def _variance(values: Tensor) -> float:
    # One image after the other here and above: all of them in Float32 may be too much for the memory.
    mean = fmean(float(value.float().mean()) for value in values)
    return fmean(float((value.float() - mean).square().mean()) for value in values)


def weights_of(stage: nn.Module) -> dict[str, Tensor]:
    """Those of convolutions and linear layers, by name, that are trained; of layers that share one, the first's."""
    weights = {f"{names[0]}.weight": stage.get_parameter(f"{names[0]}.weight") for names in names_by_weight(stage)}
    return {name: weight for name, weight in weights.items() if weight.requires_grad}


def _size(weight: Tensor) -> float:
    """The root mean square of the weights that stay, the unit of their learning rate."""
    kept = weight.detach()[weight != 0]
    return float(kept.square().mean().sqrt()) if len(kept) else 0.0


def _images_at_once(inputs: Tensor, most: int) -> int:
    positions = inputs[0, 0].numel() if inputs.ndim == 4 else 1
    return min(most, max(_FEWEST_IMAGES, _POSITIONS // positions))


def _batches(images: int, size: int, order: np.random.Generator) -> Iterator[Tensor]:
    """Image numbers, each once before any comes again; what does not fill a batch is left out of its round."""
    size = min(size, images)
    while True:
        shuffled = torch.from_numpy(order.permutation(images))
        yield from (shuffled[start : start + size] for start in range(0, images - size + 1, size))
