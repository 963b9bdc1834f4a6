"""The Hessians of layers: what comes into a layer, times itself transposed, summed over images and places.

They cost more than running the network does, so that nothing is multiplied twice: of what is symmetric one half, of
a convolution one row of the kernel against another row, not one place of the kernel against another. What lies between
two rows of the kernel depends on their distance alone, but for the image's edges, which are taken off and put on.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from coreml_prune_bench.models.layers import PrunableLayer

_PANEL = 256
"""Rows of a symmetric product that are multiplied at once, with all columns up to theirs."""


class Hessian:
    """Of one layer, over the batches that `add` is given; Float32, on the device of what comes in."""

    def __init__(self, layer: PrunableLayer) -> None:
        self._layer = layer
        self._sum: Tensor | None = None
        self._rows = _KernelRows(layer) if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1) else None
        self._count = 0

    def add(self, inputs: Tensor) -> None:
        """inputs: [N, C, H, W] of a convolution, [N, ..., C] of a linear layer."""
        self._count += len(inputs) if inputs.ndim > 1 else 1
        if self._rows is not None:
            self._rows.add(inputs)
            return
        if isinstance(self._layer, nn.Conv2d):
            inputs = _padded(inputs, self._layer)[:, :: self._layer.stride[0], :: self._layer.stride[1]]
        places = inputs.reshape(-1, inputs.shape[-1]).float()
        if self._sum is None:
            self._sum = places.new_zeros(places.shape[1], places.shape[1])
        _add_symmetric(self._sum, places)

    def mean(self) -> Tensor:
        """Twice the mean over images, [columns, columns], columns in the order of the layer's flattened weight.

        Zero where nothing came in.
        """
        total = self._total()
        if total is None:
            columns = self._layer.weight[0].numel()
            return self._layer.weight.new_zeros(columns, columns, dtype=torch.float32)
        return total.mul_(2 / self._count)

    def _total(self) -> Tensor | None:
        if self._rows is not None:
            return self._rows.total()
        return None if self._sum is None else _mirrored(self._sum)


def rows_as_inputs(weight: Tensor) -> Tensor:
    """[classes, inputs], Float32: the rows of the layer that gives the classes, each less the mean of all.

    What speaks for a class lies along its row, so that it stands for images of the class.
    """
    rows = weight.flatten(1).float()
    return rows - rows.mean(dim=0)


def add_rows(hessian: Tensor, weight: Tensor, share: float) -> None:
    """Count the rows of a weight as inputs, too, by `share` of what came in: in place, the trace times `1 + share`."""
    rows = rows_as_inputs(weight)
    size = float(rows.square().sum())
    if size:
        hessian.addmm_(rows.t(), rows, alpha=share * float(hessian.trace()) / size)


class _Pair(NamedTuple):
    """Two rows of a kernel, the upper one first."""

    upper: int
    lower: int


class _KernelRows:
    """The sum for a kernel of several places, by pairs of its rows.

    With stride 1, row i against row j of the kernel sees the same rows of the image as i - 1 against j - 1, less the
    first and with one more at the end; with stride s so does i - s against j - s.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        self._layer = layer
        height, stride, dilation = layer.kernel_size[0], layer.stride[0], layer.dilation[0]
        self._height, self._stride, self._dilation = height, stride, dilation
        step, rest = divmod(stride, dilation)
        self._step = step if not rest else height  # none before it, where the rows of two kernel rows never meet
        self._sums: dict[_Pair, Tensor] = {}

    def add(self, images: Tensor) -> None:
        layer, stride = self._layer, self._stride
        top, rows = _padding(layer)[2], images.shape[2]
        images = _padded(images, layer)
        count = (images.shape[1] - (self._height - 1) * self._dilation - 1) // stride + 1  # rows of the output
        by_phase = _unfolded_rows(images, layer)  # [stride, rows / stride, N x W_out, kW x C]

        def seen(row: int, first: int, number: int) -> Tensor:
            """What row `row` of the kernel sees for `number` rows of the output from `first` on: [places, kW x C]."""
            phase, begin = (row * self._dilation) % stride, row * self._dilation // stride + first
            return by_phase[phase, begin : begin + number].flatten(0, 1)

        def is_padding(row: int, at: int) -> bool:
            return not top <= row * self._dilation + at * stride < top + rows

        for upper in range(self._height):
            for lower in range(upper, self._height):
                pair = _Pair(upper, lower)
                before = _Pair(upper - self._step, lower - self._step)
                if before.upper < 0:
                    self._accumulate(pair, seen(upper, 0, count), seen(lower, 0, count))
                    continue
                for (one, other), at, sign in ((before, 0, -1.0), (pair, count - 1, 1.0)):
                    if not (is_padding(one, at) or is_padding(other, at)):
                        self._accumulate(pair, seen(one, at, 1), seen(other, at, 1), sign)

    def _accumulate(self, pair: _Pair, upper: Tensor, lower: Tensor, sign: float = 1.0) -> None:
        if pair not in self._sums:
            self._sums[pair] = upper.new_zeros(upper.shape[1], lower.shape[1])
        if pair.upper == pair.lower:
            _add_symmetric(self._sums[pair], upper, sign)
        else:
            self._sums[pair].addmm_(upper.t(), lower, alpha=sign)

    def total(self) -> Tensor | None:
        """[C x kH x kW, C x kH x kW]; None where nothing came in."""
        if not self._sums:
            return None
        width, height, channels = self._layer.kernel_size[1], self._height, self._layer.in_channels
        sums: dict[_Pair, Tensor] = {}
        total = next(iter(self._sums.values())).new_empty(channels, height, width, channels, height, width)
        for upper in range(height):
            for lower in range(upper, height):
                pair, before = _Pair(upper, lower), _Pair(upper - self._step, lower - self._step)
                found = self._sums.pop(pair, None)
                if found is not None and upper == lower:
                    found = _mirrored(found)
                parts = [one for one in (found, sums.get(before)) if one is not None]
                sums[pair] = parts[0] if len(parts) == 1 else parts[0] + parts[1]
                block = sums[pair].view(width, channels, width, channels)
                total[:, upper, :, :, lower] = block.permute(1, 0, 3, 2)
                total[:, lower, :, :, upper] = block.permute(3, 2, 1, 0)
        return total.view(channels * height * width, -1)


def _unfolded_rows(images: Tensor, layer: nn.Conv2d) -> Tensor:
    """[stride, rows / stride, N x W_out, kW x C] of padded [N, H, W, C]: rows of one phase of the stride together."""
    number, height, width, channels = images.shape
    stride, size, dilation = layer.stride, layer.kernel_size[1], layer.dilation[1]
    places = (width - (size - 1) * dilation - 1) // stride[1] + 1
    rows = -(-height // stride[0])
    unfolded = images.new_zeros(stride[0], rows, number, places, size, channels)
    for column in range(size):
        first = column * dilation
        seen = images[:, :, first : first + (places - 1) * stride[1] + 1 : stride[1]].transpose(0, 1)
        for phase in range(stride[0]):
            of_phase = seen[phase :: stride[0]]
            unfolded[phase, : len(of_phase), :, :, column] = of_phase
    return unfolded.view(stride[0], rows, number * places, size * channels)


def _padding(layer: nn.Conv2d) -> list[int]:
    """Left, right, above, below. Zeros whatever the padding's mode is, as in Core ML Tools' SparseGPT."""
    return layer._reversed_padding_repeated_twice


def _padded(images: Tensor, layer: nn.Conv2d) -> Tensor:
    """[N, H, W, C], Float32, of [N, C, H, W]."""
    left, right, above, below = _padding(layer)
    number, channels, height, width = images.shape
    if not any((left, right, above, below)):
        return images.permute(0, 2, 3, 1).float()
    padded = images.new_zeros(number, height + above + below, width + left + right, channels, dtype=torch.float32)
    padded[:, above : above + height, left : left + width] = images.permute(0, 2, 3, 1)
    return padded


def _add_symmetric(total: Tensor, places: Tensor, sign: float = 1.0) -> None:
    """Add `places` [places, n] transposed times itself to the lower triangle of `total` [n, n], and little else."""
    for begin in range(0, len(total), _PANEL):
        end = min(begin + _PANEL, len(total))
        total[begin:end, :end].addmm_(places[:, begin:end].t(), places[:, :end], alpha=sign)


def _mirrored(total: Tensor) -> Tensor:
    return total.tril() + total.tril(-1).t()
