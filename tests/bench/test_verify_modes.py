"""A package whose pattern or storage is not the one asked for fails its cell."""

import coremltools.optimize.coreml as cto
import pytest
import torch

from coreml_prune_bench.bench.verify import check_package
from coreml_prune_bench.core.errors import CellFailedError
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.conversion import encode_zeros, to_coreml
from coreml_prune_bench.models.pattern import Pattern
from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml
from tests.models.modes import PALETTIZED, QUANTIZED, SPARSE, post
from tests.models.tiny import SIZE, dense, pruned


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Half of each weight zero, anywhere."""
    path = tmp_path_factory.mktemp("half") / "x.mlpackage"
    result, _ = pruned(post(sparsity=0.5))
    to_sparse_coreml(result).save(str(path))
    return path, read_package(path), result.targets


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (Pattern(along="input", size=4, zeros=2), "groups of 4 have fewer than 2 zeros"),
        (Pattern(along="output", size=4, zeros=2), "groups of 4 have fewer than 2 zeros"),
        (Pattern(along="row", size=4, zeros=2), "groups of 4 have fewer than 2 zeros"),
        (Pattern(along="output", size=2), "zeros stand in groups that are not zero as a whole"),
        (Pattern(along="input", size=2), "zeros stand in groups that are not zero as a whole"),
        (Pattern(along="channel"), "zeros stand in groups that are not zero as a whole"),
        (Pattern(along="kernel"), "zeros stand in groups that are not zero as a whole"),
    ],
)
def test_the_right_count_in_another_pattern_fails(half, baseline, pattern, message):
    path, package, targets = half
    with pytest.raises(CellFailedError, match=f"layer features.6 has another pattern than asked for: .*{message}"):
        check_package(path, package, targets, baseline, patterns={"features.6": pattern})


def test_one_group_that_lacks_a_zero_fails(baseline, tmp_path):
    model = fold_batchnorm(dense(), SIZE)
    weight = model.get_submodule("features.6").weight  # [32, 16, 3, 3]
    with torch.no_grad():
        weight[:, ::2] = 0  # 1:2 along the inputs
        weight[7, 4, 1, 1], weight[7, 5, 1, 2] = 0.1, 0.0  # the same number of zeros
    path = tmp_path / "x.mlpackage"
    encode_zeros(to_coreml(model, SIZE), ["features.6"]).save(str(path))
    patterns = {"features.6": Pattern(along="input", size=2, zeros=1)}
    with pytest.raises(CellFailedError, match="1 of its 2,304 groups of 2 have fewer than 1 zeros"):
        check_package(path, read_package(path), {"features.6": 0.5}, baseline, patterns=patterns)


@pytest.mark.parametrize(
    ("storage", "bits", "message"),
    [
        (QUANTIZED, 8, "no weight in scope is stored sparse [+] blockwise-quantized"),
        (PALETTIZED, 4, "no weight in scope is stored sparse [+] palettized"),
        (SPARSE, 8, "layer features.0 is stored with 16 bits a value, not 8"),
    ],
)
def test_storage_that_was_not_asked_for_fails(half, baseline, storage, bits, message):
    path, package, targets = half
    with pytest.raises(CellFailedError, match=message):
        check_package(path, package, targets, baseline, storage=storage, bits=bits)


def test_bits_are_those_of_an_index_where_coremltools_packs_them_for_ios17(tmp_path):
    config = cto.OptimizationConfig(cto.OpPalettizerConfig(mode="uniform", nbits=2, weight_threshold=0))
    cto.palettize_weights(to_coreml(dense(), SIZE), config).save(str(tmp_path / "x.mlpackage"))
    weight = read_package(tmp_path / "x.mlpackage").weight_of_layer("features.6")
    assert (weight.storage, weight.bits) == ("palettized", 2)
