"""Check 28: Core AI, which macOS 27 has."""

import platform
from pathlib import Path
from typing import Any

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency.self_test.check import Here, NotApplicable
from coreml_prune_bench.runtimes.coreai import CPU_ONLY, all_units_here
from coreml_prune_bench.runtimes.protocol import COMPUTE_UNITS

_SIZE, _IMAGES = 32, 8
_SINCE_MACOS = 27
_FLOAT16_ERROR = 0.01
"""Of scores, as a share of their span: they are sums of some hundred products in Float16."""


def core_ai(here: Here) -> None:
    if (version := int(platform.mac_ver()[0].partition(".")[0])) < _SINCE_MACOS:
        raise NotApplicable(f"macOS {version} has no Core AI, macOS {_SINCE_MACOS} has")
    try:
        units = all_units_here([], COMPUTE_UNITS)
    except BenchError as error:
        raise NotApplicable(str(error)) from error
    here.note("units", units)
    here.expect(units[0] != CPU_ONLY, "coreai-core takes its own runtime, which has the processor alone")
    expected = here.other_process(_made, here.scratch / "sparse.aimodel")
    span = max(expected) - min(expected)
    for unit in units:
        found = here.other_process(_predicted, here.scratch / "sparse.aimodel", unit)
        share = max(abs(a - b) for a, b in zip(found["scores"], expected, strict=True)) / span
        here.note(unit, {"load_ns": found["load_ns"], "error": share})
        here.expect(share < _FLOAT16_ERROR, f"{unit}: scores differ by {100 * share:.3g} % of their span")


def _made(package: Path) -> list[float]:
    """Write a network with a sparse layer; returns its scores in the portable runtime."""
    import torch
    from torch import nn

    from coreml_prune_bench.aimodel.naming import add_names
    from coreml_prune_bench.models.conversion import INPUT_NAME
    from coreml_prune_bench.models.coreai import save_coreai
    from coreml_prune_bench.runtimes import portable

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    with torch.no_grad():
        weight = model.get_submodule("2").get_parameter("weight")
        weight.mul_(torch.rand_like(weight) < 0.25)
    add_names(package, INPUT_NAME, save_coreai(model, _SIZE, package, sparse=["2"]))
    return _scores(portable.load(package, cache=False))


def _predicted(package: Path, unit: str) -> dict[str, Any]:
    """load_ns: the first load of this process, and the second."""
    from coreml_prune_bench.runtimes import coreai

    first = coreai.Model(package, compute_units=unit)
    second = coreai.Model(package, compute_units=unit)
    return {"load_ns": [first.load_ns, second.load_ns], "scores": _scores(second)}


def _scores(model: Any) -> list[float]:
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, _SIZE, _SIZE, 3), dtype=np.uint8)
    (found,) = model.predict_batch({model.inputs[0].name: images}).values()
    return [float(score) for score in found.ravel()]
