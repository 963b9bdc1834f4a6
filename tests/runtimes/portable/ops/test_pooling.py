"""Pooling, against torch, its definition written out, and worked by hand."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from torch.nn import functional

from coreml_prune_bench.core.errors import UnsupportedOperationError
from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil
from tests.runtimes.portable.programs import Drawn, Operations, all_close, run


def pooled(x: np.ndarray, kernel: int, stride: int, pad: Sequence[int], what: str, *, ceil_mode: bool) -> np.ndarray:
    """Along the last dimension, window by window as the definition has it."""
    size, (before, after) = x.shape[-1], pad
    steps = (size + before + after - kernel) / stride
    count = math.ceil(steps) + 1 if ceil_mode else math.floor(steps) + 1
    if ceil_mode and (count - 1) * stride >= size + before and before + after > 0:
        count -= 1
    results = []
    for start in range(-before, -before + count * stride, stride):
        window = x[..., max(0, start) : max(0, start + kernel)]
        included = min(start + kernel, size + after) - start
        results.append(
            {
                "max": lambda w: w.max(-1, initial=-np.inf),
                "l2": lambda w: np.sqrt((w**2).sum(-1)),
                "average": lambda w, n=included: w.sum(-1) / n,
                "average of the input": lambda w: w.sum(-1) / max(1, w.shape[-1]),
            }[what](window)
        )
    return np.stack(results, -1)


def pool(what: str, x: Any, kernel: int, stride: int, pad: Sequence[int], *, ceil_mode: bool) -> Any:
    options = {"kernel_sizes": [kernel], "strides": [stride], "pad_type": "custom", "pad": pad, "ceil_mode": ceil_mode}
    if what in ("max", "l2"):
        return getattr(mb, f"{what}_pool")(x=x, **options)
    return mb.avg_pool(x=x, exclude_padding_from_average=what != "average", **options)


def test_pools_in_ceil_mode_and_with_uneven_padding(drawn: Drawn, tmp_path: Path) -> None:
    x = drawn(1, 2, 8)
    cases = [(3, 2, (1, 1), True), (3, 3, (0, 0), True), (2, 3, (1, 1), True), (5, 4, (2, 2), True)]
    cases += [(3, 2, (2, 1), False), (3, 4, (0, 2), False), (3, 3, (0, 3), False)]
    operations: Operations = {}
    references = {}
    for what in ("max", "l2", "average", "average of the input"):
        for kernel, stride, pad, ceil_mode in cases:
            name = f"{what} {kernel} {stride} {pad} {ceil_mode}"
            operations[name] = lambda x, what=what, k=kernel, s=stride, p=pad, c=ceil_mode: pool(
                what, x, k, s, p, ceil_mode=c
            )
            references[name] = pooled(x, kernel, stride, pad, what, ceil_mode=ceil_mode)
    all_close(run(tmp_path, operations, x), references)


def test_pools_with_padding_as_large_as_the_kernel(drawn: Drawn, tmp_path: Path) -> None:
    x = drawn(1, 2, 5)
    operations: Operations = {
        "l2": lambda x: pool("l2", x, 2, 1, (2, 3), ceil_mode=False),
        "average": lambda x: pool("average", x, 2, 1, (2, 3), ceil_mode=False),
    }
    references = {name: pooled(x, 2, 1, (2, 3), name, ceil_mode=False) for name in operations}
    all_close(run(tmp_path, operations, x), references)


@pytest.mark.parametrize("what", ["max", "average of the input"])
def test_windows_of_padding_alone_are_refused(what: str, tmp_path: Path) -> None:
    path = from_mil(tmp_path / "m.mlpackage", lambda x: pool(what, x, 2, 1, (2, 0), ceil_mode=False), (1, 1, 5))
    with pytest.raises(UnsupportedOperationError, match="outside the input"):
        load(path)


def test_windows_that_ceil_mode_puts_outside_the_input_are_refused(tmp_path: Path) -> None:
    path = from_mil(tmp_path / "m.mlpackage", lambda x: pool("average", x, 1, 3, (0, 0), ceil_mode=True), (1, 1, 2))
    with pytest.raises(UnsupportedOperationError, match="outside the input"):
        load(path)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kind", ["max", "average", "average excluding padding"])
@pytest.mark.parametrize("size", [6, 7, 8])
def test_pooling_is_torchs(kind: str, padding: int, ceil_mode: bool, size: int, tmp_path: Path) -> None:
    def torchs(x: torch.Tensor) -> torch.Tensor:
        if kind == "max":
            return functional.max_pool2d(x, 3, 2, padding, ceil_mode=ceil_mode)
        return functional.avg_pool2d(x, 3, 2, padding, ceil_mode, count_include_pad=kind == "average")

    def build(x: Any) -> Any:
        options = {"exclude_padding_from_average": kind != "average"} if kind != "max" else {}
        pool = mb.max_pool if kind == "max" else mb.avg_pool
        pad = [padding] * 4
        return pool(
            x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=pad, ceil_mode=ceil_mode, **options
        )

    x = torch.randn(2, 3, size, size) - 1
    path = from_mil(tmp_path / "m.mlpackage", build, x.shape)
    (result,) = load(path, threads=1).predict({"x": x.numpy()}).values()
    np.testing.assert_allclose(result, torchs(x).numpy(), rtol=1e-5, atol=1e-6)


# [1, 2, 3, 4, 5] with kernel 2 and stride 2, by hand: `same` pads one zero at the end, `same_lower` at the start.
@pytest.mark.parametrize(
    ("pad_type", "exclude", "expected"),
    [("same", False, [1.5, 3.5, 2.5]), ("same", True, [1.5, 3.5, 5.0]), ("same_lower", False, [0.5, 2.5, 4.5])],
)
def test_average_pool_pads_as_pad_type_says(
    pad_type: str, exclude: bool, expected: list[float], tmp_path: Path
) -> None:
    path = from_mil(
        tmp_path / "m.mlpackage",
        lambda x: mb.avg_pool(
            x=x, kernel_sizes=[2], strides=[2], pad_type=pad_type, exclude_padding_from_average=exclude
        ),
        (1, 1, 5),
    )
    (result,) = load(path).predict({"x": np.arange(1, 6, dtype=np.float32).reshape(1, 1, 5)}).values()
    assert result[0, 0].tolist() == expected
