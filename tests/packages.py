"""Small Core ML packages for the tests, from torch modules and from MIL programs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from coreml_prune_bench.models.quiet import quiet_coremltools

quiet_coremltools()
import coremltools as ct  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402


def from_torch(path: Path, module: torch.nn.Module, shape: Sequence[int], **options: Any) -> Path:
    """Convert with one array input "x" and one output "y", in Float32 unless `options` say otherwise."""
    traced = torch.jit.trace(module.eval(), torch.rand(*shape))
    defaults = {
        "inputs": [ct.TensorType("x", shape=tuple(shape))],
        "outputs": [ct.TensorType("y")],
        "minimum_deployment_target": ct.target.iOS17,
        "compute_precision": ct.precision.FLOAT32,
    }
    ct.convert(traced, **(defaults | options)).save(str(path))
    return path


def from_mil(
    path: Path, build: Callable[..., Any], *shapes: Sequence[int], dtype: Any = None, opset: Any = ct.target.iOS17
) -> Path:
    """Convert the MIL program that `build` writes, with no pass that could rewrite it.

    Its inputs are named as `build`'s parameters. Float32.
    """
    specs = [mb.TensorSpec(shape=tuple(shape), **({"dtype": dtype} if dtype else {})) for shape in shapes]
    program = mb.program(input_specs=specs, opset_version=opset)(build)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=opset,
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
    )
    model.save(str(path))
    return path


def settle(network: torch.nn.Module, size: int, *, images: int = 8) -> torch.nn.Module:
    """Give BatchNorm the statistics of what flows through random weights, so that activations keep their scale."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean
    network.train()
    with torch.no_grad():
        network(torch.randn(images, 3, size, size))
    return network.eval()
