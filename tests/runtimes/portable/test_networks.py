"""The three networks of the benchmark, sparse and in Float16 as they ship, against torch with the same weights."""

from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import onnx
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.fx.experimental.optimization import fuse

from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.runtimes.portable import load
from coreml_prune_bench.runtimes.portable.session import Model
from tests.packages import from_torch, settle

SIZE = 64
NETWORKS = [
    pytest.param("mobilenet_v2", marks=pytest.mark.slow),
    "mobilenet_v3_small",
    pytest.param("resnet50", marks=pytest.mark.slow),
]


class OnPixels(nn.Module):
    """From 0..255 to what a network settled on random normal numbers expects."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x / 256 - 0.5) * 3.5)  # numbers that Float16 holds exactly


def half_of_weights_zero(network: nn.Module) -> None:
    """Zero the smaller half of each large enough weight."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.data
            if weight.numel() > 2048:
                weight[weight.abs() < weight.abs().median()] = 0


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    network = getattr(torchvision.models, request.param)(weights=None)
    half_of_weights_zero(network)
    # BatchNorm folded and weights rounded here, so that the package holds exactly the weights that torch computes with.
    module = OnPixels(fuse(settle(network, SIZE))).eval()
    for parameter in module.parameters():
        parameter.data = parameter.data.half().float()
    folder = tmp_path_factory.mktemp(request.param)
    dense = from_torch(
        folder / "dense.mlpackage",
        module,
        (1, 3, SIZE, SIZE),
        inputs=[ct.ImageType("x", shape=(1, 3, SIZE, SIZE))],
        compute_precision=ct.precision.FLOAT16,
    )
    config = cto.OptimizationConfig(cto.OpThresholdPrunerConfig(threshold=1e-12, minimum_sparsity_percentile=0.4))
    cto.prune_weights(ct.models.MLModel(str(dense), skip_model_load=True), config).save(str(folder / "m.mlpackage"))
    return module, folder / "m.mlpackage"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)  # [N, H, W, C]


@pytest.fixture(scope="module")
def model(network: tuple[nn.Module, Path]) -> Model:
    return load(network[1], threads=2)


def test_network_computes_what_torch_does(network: tuple[nn.Module, Path], model: Model, images: np.ndarray) -> None:
    with torch.no_grad():
        expected = network[0](torch.from_numpy(images).permute(0, 3, 1, 2).float()).numpy()
    result = model.predict_batch({"x": images})["y"]
    # What is left is hard-swish: its 1/6 is a Float16 number in the package.
    assert np.abs(result - expected).max() < 2e-3 * expected.std()


def test_batch_is_its_samples_one_by_one(model: Model, images: np.ndarray) -> None:
    assert model.any_batch
    together = model.predict_batch({"x": images})["y"]
    apart = [model.predict({"x": Image.fromarray(image)})["y"] for image in images]
    assert apart[0].shape == (1, 1000)
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-4, atol=1e-5)


def test_sparsity_is_read_from_the_masks(network: tuple[nn.Module, Path]) -> None:
    summary = read_package(network[1])
    sparse = [weight for weight in summary.weights if weight.storage == "sparse"]
    assert len(sparse) == summary.operations["constexpr_sparse_to_dense"] > 40
    assert all(weight.sparsity == pytest.approx(0.5, abs=0.01) for weight in sparse)


def test_onnx_accepts_the_translation(model: Model, tmp_path: Path) -> None:
    model.to_onnx(tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert [graph.input[0].name, graph.output[0].name] == ["x", "y"]
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert "Identity" not in {node.op_type for node in graph.node}
    assert [node.op_type for node in graph.node].count("Cast") == 1  # the image's
