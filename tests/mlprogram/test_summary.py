"""What a package is said to hold, against what was put into it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import pytest
import torch
from torch import nn

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.latency.targets import package_at
from coreml_prune_bench.mlprogram.summary import PackageSummary, read_package
from tests.packages import from_torch


class Net(nn.Module):
    """Two convolutions; 4 * 3 * 3 * 3 = 108 and 5 * 4 * 1 * 1 = 20 weights. 20 zeros and 4 zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False))
        with torch.no_grad():
            self.features[0][0].weight.fill_(0.5).view(-1)[:20] = 0
            self.features[2].weight.fill_(0.25).view(-1)[:4] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("package")
    shape = (1, 3, 8, 6)
    dense = from_torch(
        folder / "dense.mlpackage",
        Net(),
        shape,
        inputs=[ct.ImageType("x", shape=shape)],
        compute_precision=ct.precision.FLOAT16,
    )
    pruner = cto.OpThresholdPrunerConfig(threshold=1e-12, minimum_sparsity_percentile=0.0, weight_threshold=50)
    sparse = cto.prune_weights(ct.models.MLModel(str(dense), skip_model_load=True), cto.OptimizationConfig(pruner))
    sparse.save(str(folder / "sparse.mlpackage"))
    return dense, folder / "sparse.mlpackage"


@pytest.fixture(scope="module")
def sparse(paths: tuple[Path, Path]) -> PackageSummary:
    return read_package(paths[1])


def test_model_is_described(sparse: PackageSummary) -> None:
    image, logits = sparse.inputs[0], sparse.outputs[0]
    assert (image.name, image.kind, image.shape, image.dtype, image.color_space) == (
        "x",
        "image",
        (8, 6, 3),
        "uint8",
        "RGB",
    )
    assert (logits.name, logits.kind, logits.shape, logits.dtype) == ("y", "array", (1, 5, 6, 4), "float16")
    assert (sparse.specification_version, sparse.deployment_target) == (8, "iOS17 / macOS14")
    assert sparse.operations["conv"] == 2
    assert sparse.operations["constexpr_sparse_to_dense"] == 1
    assert "const" not in sparse.operations


def test_sparse_weight(sparse: PackageSummary) -> None:
    weight = sparse.weight_of_layer("features.0.0")
    assert weight.name == "features_0_0_weight_to_fp16_sparsified"
    assert (weight.shape, weight.dtype, weight.storage) == ((4, 3, 3, 3), "float16", "sparse")
    # 108 elements are 13.5 bytes of mask: its 4 padding bits are no zeros.
    assert (weight.elements, weight.zeros, weight.sparsity) == (108, 20, 20 / 108)
    assert weight.size_bytes == 14 + 88 * 2


def test_dense_weight(sparse: PackageSummary, paths: tuple[Path, Path]) -> None:
    weight = sparse.weight_of_layer("features.2")
    assert (weight.name, weight.storage) == ("features_2_weight_to_fp16", "dense")
    assert (weight.zeros, weight.sparsity, weight.size_bytes) == (4, 0.2, 40)
    assert read_package(paths[0]).weight_of_layer("features.0.0").storage == "dense"


def test_totals(sparse: PackageSummary, paths: tuple[Path, Path]) -> None:
    assert sparse.elements == sum(weight.elements for weight in sparse.weights)
    assert sparse.whole_model_sparsity == pytest.approx((20 + 4) / (108 + 20))
    files = {file: file.stat().st_size for file in paths[1].rglob("*") if file.is_file()}
    assert sparse.package_bytes == sum(files.values())
    assert sparse.weight_bytes == next(size for file, size in files.items() if file.name == "weight.bin")


def test_foreign_files_have_no_part_in_the_size(
    sparse: PackageSummary, paths: tuple[Path, Path], tmp_path: Path
) -> None:
    package = Path(shutil.copytree(paths[1], tmp_path / "m.mlpackage"))
    for name in (".DS_Store", "notes.txt", "Data/com.apple.CoreML/weights/._weight.bin"):
        (package / name).write_bytes(bytes(4096))
    assert read_package(package) == sparse
    assert package_at(package) == package_at(paths[1]).model_copy(update={"name": "m"})


def test_storage_does_not_change_sparsity(sparse: PackageSummary, paths: tuple[Path, Path]) -> None:
    assert read_package(paths[0]).whole_model_sparsity == sparse.whole_model_sparsity


@pytest.mark.parametrize("layer", ["features.1", "features", "features.0", "eatures.2"])
def test_layer_without_a_weight(sparse: PackageSummary, layer: str) -> None:
    with pytest.raises(PackageError, match=f"layer '{layer}': expected one weight"):
        sparse.weight_of_layer(layer)


def test_summary_survives_json(sparse: PackageSummary) -> None:
    assert PackageSummary.model_validate(json.loads(sparse.model_dump_json())) == sparse


def test_importing_is_light() -> None:
    heavy = "torch", "onnx", "onnxruntime", "coremltools"
    code = (
        "import sys, coreml_prune_bench.mlprogram.summary, coreml_prune_bench.runtimes; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
