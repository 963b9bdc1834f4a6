"""Packages of compressed weights against what coremltools decompresses of the same ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.mlprogram.summary import WeightSummary, read_package
from coreml_prune_bench.runtimes.portable import load
from tests.packages import from_mil, from_torch

X = np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(4, 16, 3, bias=False)  # 576 weights
    path = tmp_path_factory.mktemp("dense") / "m.mlpackage"
    options = {"minimum_deployment_target": ct.target.iOS18, "compute_precision": ct.precision.FLOAT16}
    return from_torch(path, network, X.shape, **options)


def prune(model: Any) -> Any:
    config = cto.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0)
    return cto.prune_weights(model, cto.OptimizationConfig(config))


def quantize(model: Any, *, joint: bool = False, **options: Any) -> Any:
    config = cto.OpLinearQuantizerConfig(weight_threshold=0, **options)
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(config), joint_compression=joint)


def palettize(model: Any, *, joint: bool = False, mode: str = "uniform", **options: Any) -> Any:
    config = cto.OpPalettizerConfig(mode=mode, weight_threshold=0, **options)
    return cto.palettize_weights(model, cto.OptimizationConfig(config), joint_compression=joint)


GROUPS = {"granularity": "per_grouped_channel", "group_size": 4}
BLOCKS = {"granularity": "per_block", "block_size": 2}
SYMMETRIC = {"mode": "linear_symmetric"}

# How a package is compressed, how `inspect` calls that, and the bytes of its weight: all 576 elements, then what
# belongs to the blocks. Tables of a few values stand in the program itself.
COMPRESSED: dict[str, tuple[Callable[[Any], Any], str, int]] = {
    "8 bits, per channel": (lambda m: quantize(m, **SYMMETRIC), "blockwise-quantized", 576 + 32),
    "4 bits, per block": (
        lambda m: quantize(m, mode="linear", dtype="int4", **BLOCKS),
        "blockwise-quantized",
        288 + 32 * 2 + 16,
    ),
    "4 bits, unsigned, per tensor": (
        lambda m: quantize(m, mode="linear", dtype="uint4", granularity="per_tensor"),
        "blockwise-quantized",
        288,
    ),
    "1 bit": (lambda m: palettize(m, nbits=1), "palettized", 72),
    "3 bits": (lambda m: palettize(m, nbits=3), "palettized", 216),
    "6 bits": (lambda m: palettize(m, nbits=6), "palettized", 432 + 64 * 2),
    "4 bits, per grouped channel": (lambda m: palettize(m, nbits=4, **GROUPS), "palettized", 288 + 4 * 16 * 2),
    "vectors": (lambda m: palettize(m, nbits=2, mode="kmeans", cluster_dim=2), "palettized", 72),
    "scaled channels": (
        lambda m: palettize(m, nbits=4, enable_per_channel_scale=True),
        "palettized + blockwise-quantized",
        288 + 36 * 16 * 2 + 36 * 2,  # a table for each position of the kernel
    ),
    "quantized tables": (
        lambda m: quantize(palettize(m, nbits=4, **GROUPS), joint=True, granularity="per_tensor", **SYMMETRIC),
        "palettized + blockwise-quantized",
        288 + 4 * 16,
    ),
    "sparse": (prune, "sparse", 72 + 288 * 2),
    "sparse, 4 bits": (
        lambda m: palettize(prune(m), joint=True, nbits=4, **GROUPS),
        "sparse + palettized",
        72 + 144 + 4 * 16 * 2,
    ),
    "sparse, 8 bits": (
        lambda m: quantize(prune(m), joint=True, **SYMMETRIC),
        "sparse + blockwise-quantized",
        72 + 288 + 32,
    ),
    "sparse, 4 bits, per block": (
        lambda m: quantize(prune(m), joint=True, dtype="int4", **BLOCKS, **SYMMETRIC),
        "sparse + blockwise-quantized",
        72 + 144 + 32 * 2,
    ),
    "sparse, quantized tables": (
        lambda m: quantize(palettize(prune(m), joint=True, nbits=4), joint=True, granularity="per_tensor", **SYMMETRIC),
        "sparse + palettized + blockwise-quantized",
        72 + 144 + 16,
    ),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_package_computes_what_coremltools_decompresses(name: str, dense: Path, tmp_path: Path) -> None:
    compress, storage, size_bytes = COMPRESSED[name]
    compressed = compress(ct.models.MLModel(str(dense), skip_model_load=True))
    decompressed = cto.decompress_weights(compressed)
    compressed.save(str(tmp_path / "c.mlpackage"))
    decompressed.save(str(tmp_path / "d.mlpackage"))
    result, expected = (load(tmp_path / f"{n}.mlpackage", threads=1).predict({"x": X})["y"] for n in "cd")
    np.testing.assert_array_equal(result, expected)

    (weight,) = read_package(tmp_path / "c.mlpackage").weights
    (plain,) = read_package(tmp_path / "d.mlpackage").weights
    assert (weight.storage, plain.storage) == (storage, "dense")
    assert (weight.shape, weight.dtype, weight.elements) == (plain.shape, plain.dtype, plain.elements)
    if storage.startswith("sparse"):
        assert weight.sparsity == 0.5  # of its mask: what is stored may be quantized to zero
    else:
        assert weight.zeros == plain.zeros
    assert weight.size_bytes == size_bytes


def test_vectors_of_a_sparse_weight(tmp_path: Path) -> None:
    """The example in the definition of constexpr_lut_to_sparse."""
    mask = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]])
    indices = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1])

    def build(x: Any) -> Any:
        one_bit = types.nptype_from_builtin(types.uint1)
        new_mask, nonzero = mb.constexpr_lut_to_sparse(
            indices_mask=mask.astype(one_bit),
            indices_nonzero_data=indices.astype(one_bit),
            lut=np.array([2, 2, 3, 3], np.float32).reshape(1, 1, 2, 2),
            vector_axis=0,
        )
        return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=nonzero, mask=new_mask))

    expected = np.zeros((4, 6), np.float32)
    expected[mask != 0] = indices + 2
    path = from_mil(tmp_path / "m.mlpackage", build, (8, 6), opset=ct.target.iOS18)
    (result,) = load(path, threads=1).predict({"x": np.ones((8, 6), np.float32)}).values()
    np.testing.assert_array_equal(result, expected.repeat(2, axis=0) + 1)
    (weight,) = read_package(path).weights
    assert (weight.storage, weight.zeros) == ("sparse + palettized", 30)


def test_weight_that_is_cast(tmp_path: Path) -> None:
    half = np.array([1.5, 0.1, 0.0], np.float16)
    path = from_mil(
        tmp_path / "m.mlpackage", lambda x: mb.add(x=x, y=mb.constexpr_cast(source_val=half, output_dtype="fp32")), (3,)
    )
    (result,) = load(path, threads=1).predict({"x": np.zeros(3, np.float32)}).values()
    np.testing.assert_array_equal(result, half.astype(np.float32))
    (weight,) = read_package(path).weights
    assert (weight.storage, weight.dtype, weight.zeros) == ("cast", "float32", 1)


def test_weight_of_a_layer_is_found_by_its_name(dense: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential()
    network.add_module("first", torch.nn.Conv2d(4, 16, 3))
    path = from_torch(tmp_path / "m.mlpackage", network, X.shape, minimum_deployment_target=ct.target.iOS18)
    palettize(prune(ct.models.MLModel(str(path), skip_model_load=True)), joint=True, nbits=4).save(str(path))
    weight: WeightSummary = read_package(path).weight_of_layer("first")
    assert (weight.shape, weight.storage) == ((16, 4, 3, 3), "sparse + palettized")


def test_damaged_weight_of_a_package(tmp_path: Path) -> None:
    data = np.arange(64, dtype=np.int8).reshape(8, 8)

    def build(x: Any) -> Any:
        return mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=data, scale=np.ones((1, 1), np.float32)))

    path = from_mil(tmp_path / "m.mlpackage", build, (8, 8), opset=ct.target.iOS18)
    (model,) = path.rglob("*.mlmodel")
    spec = ct.utils.load_spec(str(path))
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    (weight,) = [o for o in block.operations if o.type.startswith("constexpr")]
    weight.outputs[0].type.tensorType.dimensions[0].constant.size = 4
    model.write_bytes(spec.SerializeToString())
    for read in (load, read_package):
        with pytest.raises(PackageError, match=r"has shape \[8, 8\].* declared as \[4, 8\]"):
            read(path)
