"""Convolution and its transpose, against torch and worked by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from torch.nn import functional

from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil, from_torch
from tests.runtimes.portable.programs import Drawn, Operations, all_close, run


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_convolution_with_computed_weights_and_bias(spatial: int, drawn: Drawn, tmp_path: Path) -> None:
    x, weight = drawn(1, 4, *[6, 7, 8][:spatial]), drawn(6, 2, *[3, 2, 2][:spatial])
    strides, pad = [2, 1, 3][:spatial], [1, 2, 0, 1, 2, 2][: 2 * spatial]

    def conv(x: Any, y: Any) -> Any:
        bias = mb.reduce_sum(x=y, axes=list(range(1, spatial + 2)))
        return mb.conv(x=x, weight=y, bias=bias, strides=strides, pad_type="custom", pad=pad, groups=2)

    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[spatial - 1]
    ends = [end for axis in reversed(range(spatial)) for end in pad[2 * axis : 2 * axis + 2]]  # torch: the last first
    padded = functional.pad(torch.from_numpy(x), ends)
    w = torch.from_numpy(weight)
    reference = convolve(padded, w, w.flatten(1).sum(1), strides, groups=2)
    all_close(run(tmp_path, {"conv": conv}, x, weight), {"conv": reference.numpy()}, tolerance=1e-4)


def test_convolution_with_quantized_weights(drawn: Drawn, draw: np.random.Generator, tmp_path: Path) -> None:
    x, weight = drawn(1, 2, 5, 5), draw.integers(0, 255, (3, 2, 2, 2)).astype(np.uint8)
    scale = np.array([0.1, 0.2, 0.3], np.float32)
    operations: Operations = {
        "conv_quantized": lambda x: mb.conv_quantized(
            x=x, weight=weight, quantization_type="linear", quant_scale=scale, quant_bias=np.float32(-3)
        )
    }
    dense = torch.from_numpy(weight * scale.reshape(3, 1, 1, 1) - 3)
    reference = functional.conv2d(torch.from_numpy(x), dense).numpy()
    all_close(run(tmp_path, operations, x, opset=ct.target.iOS15), {"conv_quantized": reference}, tolerance=1e-4)


def fitted(full: np.ndarray, sizes: Sequence[int], before: Sequence[int]) -> np.ndarray:
    """`sizes` elements of each spatial dimension from `before` on, zeros where there are none."""
    for axis, (size, first) in enumerate(zip(sizes, before, strict=True), start=2):
        full = np.take(full, range(first, min(full.shape[axis], first + size)), axis)
        missing = [(0, size - full.shape[axis] if other == axis else 0) for other in range(full.ndim)]
        full = np.pad(full, missing)
    return full


# Options of conv_transpose, then the output's sizes and what is cut off before it, for x of [5] or [5, 4] and a kernel
# of [4] or [4, 2]. Without cutting, stride 3 makes 16 and 11 elements, stride 2 makes 12 and 8.
CROPS: dict[str, tuple[dict[str, Any], list[int], list[int]]] = {
    "valid": ({"strides": [3, 3]}, [16, 11], [0, 0]),
    "valid, longer": ({"strides": [3, 3], "output_shape": [18, 12]}, [18, 12], [0, 0]),
    "custom": ({"strides": [3, 3], "pad_type": "custom", "pad": [1, 2, 3, 0]}, [13, 8], [1, 3]),
    "custom, longer": (
        {"strides": [3, 3], "pad_type": "custom", "pad": [1, 2, 3, 0], "output_shape": [14, 10]},
        [14, 10],
        [1, 3],
    ),
    # The kernel of 4 overlaps by 2 with stride 2; that of 2 not at all, and leaves a gap with stride 3.
    "same": ({"strides": [2, 3], "pad_type": "same"}, [10, 12], [1, 0]),
    "same, shorter": ({"strides": [2, 3], "pad_type": "same", "output_shape": [9, 10]}, [9, 10], [1, 0]),
}


@pytest.mark.parametrize("spatial", [1, 2])
def test_transposed_convolution_cuts_as_pad_type_and_output_shape_say(
    spatial: int, drawn: Drawn, tmp_path: Path
) -> None:
    x, weight = drawn(1, 4, *[5, 4][:spatial]), drawn(4, 3, *[4, 2][:spatial])
    bias = drawn(6)
    operations: Operations = {}
    references = {}
    for name, (options, sizes, before) in CROPS.items():
        cut = {key: value[:spatial] if key == "strides" else value for key, value in options.items()}
        if "pad" in cut:
            cut["pad"] = cut["pad"][: 2 * spatial]
        if "output_shape" in cut:
            cut["output_shape"] = [1, 6, *cut["output_shape"][:spatial]]
        operations[name] = lambda x, cut=cut: mb.conv_transpose(x=x, weight=weight, bias=bias, groups=2, **cut)
        transpose = (functional.conv_transpose1d, functional.conv_transpose2d)[spatial - 1]
        full = transpose(torch.from_numpy(x), torch.from_numpy(weight), None, cut["strides"], groups=2).numpy()
        references[name] = fitted(full, sizes[:spatial], before[:spatial]) + bias.reshape(6, *[1] * spatial)
    all_close(run(tmp_path, operations, x), references, tolerance=1e-4)


def test_transposed_convolution_in_three_dimensions_with_computed_weights(drawn: Drawn, tmp_path: Path) -> None:
    x, weight = drawn(1, 2, 3, 4, 3), drawn(2, 3, 2, 3, 2)
    options = {"strides": [2, 1, 2], "dilations": [1, 2, 1]}
    pad = [1, 1, 2, 2, 0, 0]
    results = run(
        tmp_path,
        {"custom": lambda x, y: mb.conv_transpose(x=x, weight=y, pad_type="custom", pad=pad, **options)},
        x,
        weight,
    )
    tensors = torch.from_numpy(x), torch.from_numpy(weight)
    reference = functional.conv_transpose3d(*tensors, None, options["strides"], pad[::2], 0, 1, options["dilations"])
    all_close(results, {"custom": reference.numpy()}, tolerance=1e-4)


def test_convolution_with_everything_set_is_torchs(tmp_path: Path) -> None:
    module = torch.nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    path = from_torch(tmp_path / "m.mlpackage", module, (1, 4, 9, 8))
    x = torch.randn(3, 4, 9, 8)
    result = load(path).predict_batch({"x": x.numpy()})["y"]
    np.testing.assert_allclose(result, module(x).detach().numpy(), rtol=1e-5, atol=1e-5)


# A [1, 1, 5] ramp under a kernel of ones, worked by hand. Stride 2 and kernel 2 make 3 outputs: 1 zero is padded.
@pytest.mark.parametrize(
    ("pad_type", "pad", "expected"),
    [
        ("valid", None, [3, 7]),
        ("same", None, [3, 7, 5]),
        ("same_lower", None, [1, 5, 9]),
        ("custom", [2, 1], [0, 3, 7, 5]),
        ("valid", [2, 1], [3, 7]),  # pad counts for custom alone
    ],
)
def test_convolution_pads_as_pad_type_says(
    pad_type: str, pad: list[int] | None, expected: list[int], tmp_path: Path
) -> None:
    weight = np.ones((1, 1, 2), np.float32)
    options = {"pad": pad} if pad else {}
    path = from_mil(
        tmp_path / "m.mlpackage",
        lambda x: mb.conv(x=x, weight=weight, strides=[2], pad_type=pad_type, **options),
        (1, 1, 5),
    )
    (result,) = load(path).predict({"x": np.arange(1, 6, dtype=np.float32).reshape(1, 1, 5)}).values()
    assert result[0, 0].tolist() == expected
