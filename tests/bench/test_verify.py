"""A package that is not what its cell says fails its cell: above all, a dense one must never pass as pruned."""

import coremltools as ct
import numpy as np
import pytest
import torch

from coreml_prune_bench.bench.verify import CellFailedError, check_package
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.conversion import encode_zeros, to_coreml
from tests.models.tiny import IN_SCOPE, SIZE, dense
from tests.tiny_network import Tiny

TARGETS = dict.fromkeys(sorted(IN_SCOPE), 0.5)


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    def save(model):
        path = tmp_path_factory.mktemp("package") / "x.mlpackage"
        model.save(str(path))
        return path, read_package(path)

    return save


@pytest.fixture(scope="module")
def baseline(save):
    return save(to_coreml(dense(), SIZE))


def pruned_model(*shares: float):
    """A torch network with this share of zeros in each layer in scope."""
    model = fold_batchnorm(dense(), SIZE)
    with torch.no_grad():
        for layer, share in zip(TARGETS, shares, strict=True):
            weight = model.get_submodule(layer).weight
            weight.view(-1)[: round(share * weight.numel())] = 0
    return model


def test_a_package_as_promised_passes(save, baseline):
    path, package = save(encode_zeros(to_coreml(pruned_model(0.5, 0.504, 0.496), SIZE), list(TARGETS)))
    check_package(path, package, TARGETS, baseline[1])
    check_package(*baseline, {}, None)


def test_a_dense_package_does_not_pass_as_pruned(baseline):
    with pytest.raises(CellFailedError, match="no weight in scope is stored sparse"):
        check_package(*baseline, TARGETS, baseline[1])
    with pytest.raises(CellFailedError, match="prunes no layer"):
        check_package(*baseline, {}, baseline[1])


def test_zeros_that_are_stored_dense_do_not_pass(save, baseline):
    path, package = save(encode_zeros(to_coreml(pruned_model(0.5, 0.5, 0.5), SIZE), list(TARGETS)[1:]))
    with pytest.raises(CellFailedError, match="layer classifier is stored dense, not sparse"):
        check_package(path, package, TARGETS, baseline[1])


def test_a_layer_out_of_scope_is_dense(save, baseline):
    path, package = save(encode_zeros(to_coreml(pruned_model(0.5, 0.5, 0.5), SIZE), list(TARGETS)))
    rest = dict.fromkeys(list(TARGETS)[1:], 0.5)
    with pytest.raises(CellFailedError, match="classifier_weight_to_fp16_sparsified is not to be pruned"):
        check_package(path, package, rest, baseline[1])


def test_a_layer_that_misses_its_target_by_more_than_half_a_point_is_named(save, baseline):
    path, package = save(encode_zeros(to_coreml(pruned_model(0.5, 0.5, 0.507), SIZE), list(TARGETS)))
    with pytest.raises(CellFailedError, match=r"layer features.6 is 50.69 % sparse, not 50.00 %"):
        check_package(path, package, TARGETS, baseline[1])


def test_a_layer_may_be_as_sparse_as_its_baseline_and_no_sparser(save):
    """A fifth of features.6 is zero in the dense network: 10 % cannot be had, 25 % was not asked for."""
    _, dense_package = save(to_coreml(pruned_model(0, 0, 0.2), SIZE))
    for share in (0.2, 0.25):
        path, package = save(encode_zeros(to_coreml(pruned_model(0, 0, share), SIZE), ["features.6"]))
        if share == 0.2:
            check_package(path, package, {"features.6": 0.1}, dense_package)
            continue
        with pytest.raises(CellFailedError, match=r"features.6 is 25.00 % sparse, not 10.00 %"):
            check_package(path, package, {"features.6": 0.1}, dense_package)


def test_another_program_than_the_baselines_does_not_pass(save, baseline):
    class Longer(Tiny):
        def forward(self, images):
            return super().forward(images).tanh()

    longer = Longer(4).eval()
    path, package = save(encode_zeros(to_coreml(longer, SIZE), list(TARGETS)))
    with pytest.raises(CellFailedError, match="the package has 1 tanh operations, the dense baseline 0"):
        check_package(path, package, dict.fromkeys(TARGETS, None), baseline[1])


def test_a_float32_package_does_not_pass(save):
    traced = torch.jit.trace(fold_batchnorm(dense(), SIZE), torch.zeros(1, 3, SIZE, SIZE))
    wide = ct.convert(
        traced,
        inputs=[ct.TensorType("x", (1, 3, SIZE, SIZE), np.float32)],
        convert_to="mlprogram",
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=ct.target.iOS17,
        skip_model_load=True,
    )
    path, package = save(wide)
    with pytest.raises(CellFailedError, match="is float32, not float16"):
        check_package(path, package, {}, None)
