"""Sparsity patterns and joint storage: what each mode promises, read back by coremltools itself."""

from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.optimize.coreml._quantization_passes import prune_weights as OwnPruner

from coreml_prune_bench.bench.verify import check_package
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.conversion import encode_zeros, folded_scales, palettize_kept, to_coreml
from coreml_prune_bench.models.pattern import Pattern, smallest
from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.models.weight_names import weight_name
from coreml_prune_bench.runtimes import portable
from tests.latency.noise import Noise
from tests.models.modes import LAYERS, MODES, THREE_INPUTS, channels, gpt, magnitude, of_rows, post
from tests.models.tiny import SIZE, dense, pruned

IMAGES = Noise().images(np.arange(40), None)


def values(path: Path) -> dict[str, np.ndarray]:
    """Every pruned layer's weight as coremltools itself decompresses it."""
    model = cto.decompress_weights(ct.models.MLModel(str(path), skip_model_load=True))
    found = {name: entry.val for name, entry in cto.get_weights_metadata(model, weight_threshold=0).items()}
    return {
        layer: next(value for name, value in found.items() if name.startswith(layer.replace(".", "_") + "_weight"))
        for layer in LAYERS
    }


@pytest.mark.parametrize(
    ("config", "has_pattern", "storage", "bits"), MODES, ids=[f"{c.algorithm}: {c.name}" for c, *_ in MODES]
)
def test_the_saved_package_has_the_pattern_the_storage_and_the_predictions(
    config, has_pattern, storage, bits, baseline, tmp_path
):
    result, model = pruned(config)
    path = tmp_path / "x.mlpackage"
    to_sparse_coreml(result).save(str(path))
    package, weights = read_package(path), values(path)
    expected = {layer: config.sparsity_of(layer, "Linear" if layer == "classifier" else "Conv2d") for layer in LAYERS}
    assert result.targets == {layer: sparsity for layer, sparsity in expected.items() if sparsity}
    for layer in LAYERS:
        found = package.weight_of_layer(layer)
        if layer in result.targets:
            step = 1 / len(weights[layer]) if has_pattern is channels else 2 / found.elements
            assert found.sparsity == pytest.approx(expected[layer], abs=max(0.002, step))
            assert has_pattern(weights[layer]), layer
            assert (found.storage, found.bits) == (storage, bits)
        else:
            assert (found.storage, found.bits, found.zeros) == ("dense", 16, 0)
    assert package.deployment_target == ("iOS17 / macOS14" if bits == 16 else "iOS18 / macOS15")
    check_package(path, package, result.targets, baseline, patterns=result.patterns, storage=storage, bits=bits)

    # The portable runtime beside torch, with the weights that coremltools finds in the package.
    folded = fold_batchnorm(model if config.needs_data else dense(), SIZE)
    with torch.no_grad():
        for layer in LAYERS:
            folded.get_submodule(layer).weight.copy_(torch.from_numpy(weights[layer].astype(np.float32)))
        reference = folded(normalize(IMAGES)).numpy()
    found = portable.load(path).predict_batch({"image": IMAGES})["logits"]
    assert np.abs(found - reference).max() < 0.02 * reference.std()


OWN = [
    (
        post(
            coremltools={
                "config_type": "OpMagnitudePrunerConfig",
                "global_config": {"target_sparsity": 0.5, "block_size": 2, "weight_threshold": 0},
                "op_name_configs": {"features_6_weight_to_fp16": {"n_m_ratio": [1, 4], "weight_threshold": 0}},
            }
        ),
        {
            **dict.fromkeys(("features.0", "features.3", "classifier"), Pattern(along="output", size=2)),
            "features.6": Pattern(along="input", size=4, zeros=1),
        },
    ),
    (
        gpt(
            coremltools={
                "module_type_configs": {
                    "Linear": {"algorithm": "sparse_gpt", "n_m_ratio": [1, 2], "weight_dtype": "float32"}
                }
            }
        ),
        {"classifier": Pattern(along="row", size=2, zeros=1)},
    ),
    (
        magnitude(
            coremltools={
                "module_name_configs": {
                    "features.6": {"scheduler": {"update_steps": [1, 2]}, "granularity": "per_kernel"},
                    "classifier": {"scheduler": {"update_steps": [1, 2]}, "block_size": 2},
                }
            }
        ),
        {"features.6": Pattern(along="kernel"), "classifier": Pattern(along="output", size=2)},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("config", "patterns"), OWN, ids=[config.algorithm for config, _ in OWN])
def test_the_patterns_of_a_core_ml_tools_config_are_checked_too(config, patterns, baseline, tmp_path):
    result, _ = pruned(config)
    assert result.patterns == patterns
    to_sparse_coreml(result).save(str(tmp_path / "x.mlpackage"))
    path = tmp_path / "x.mlpackage"
    check_package(path, read_package(path), result.targets, baseline, patterns=result.patterns)


def test_sparse_gpts_quantized_weights_are_stored_as_it_chose_them(tmp_path):
    """On its grid, folded with BatchNorm: the integers are its own, and Float16 rounds their scales alone."""
    result, model = pruned(gpt(sparsity=0.5, weight_dtype="uint8"))
    to_sparse_coreml(result).save(str(tmp_path / "x.mlpackage"))
    folded = fold_batchnorm(model, SIZE)
    scales = folded_scales(model, folded)
    for layer, value in values(tmp_path / "x.mlpackage").items():
        chosen = folded.get_submodule(layer).weight.detach()
        scale = scales[layer].view(-1, *[1] * (chosen.ndim - 1)).detach()
        integers = (chosen / scale).numpy()
        assert np.abs(integers - integers.round()).max() < 1e-3, layer
        assert len(np.unique(integers.round())) > 16
        assert np.abs(value - chosen.numpy()).max() <= 2**-10 * np.abs(chosen.numpy()).max()


def test_sparse_gpt_keeps_to_n_of_m_where_calibration_leaves_inputs_at_zero():
    """Twelve of the sixteen inputs of features.6 never fire: SparseGPT itself would zero every group of theirs."""
    model = dense()
    with torch.no_grad():
        model.features[4].bias[:12] = -100.0
    before = model.features[6].weight.detach().clone()
    pruned(gpt(n_m_ratio=(2, 4), layers=THREE_INPUTS), model)
    after = model.features[6].weight.detach()
    assert of_rows(2, 4)(after.numpy())
    kept = after[:, :12] != 0
    assert torch.equal(after[:, :12][kept], before[:, :12][kept])


def test_blocks_and_ratios_are_those_that_core_ml_tools_chooses():
    """In Float32, where norms do not tie."""
    weight = np.random.default_rng(0).normal(size=(32, 16, 3, 3)).astype(np.float32)
    for theirs, pattern, sparsity in (
        (OwnPruner.compress_by_magnitude(weight, 0.5, 4, 0), Pattern(along="output", size=4), 0.5),
        (OwnPruner.compress_by_magnitude(weight, 0.75, 5, 0), Pattern(along="output", size=5), 0.75),
        (OwnPruner.compress_by_magnitude(weight, 0.25, 8, 1), Pattern(along="input", size=8), 0.25),
        (OwnPruner.compress_by_nm_sparsity(weight, (3, 4), 1), Pattern(along="input", size=4, zeros=3), None),
        (OwnPruner.compress_by_nm_sparsity(weight, (1, 8), 0), Pattern(along="output", size=8, zeros=1), None),
    ):
        ours = weight.copy()
        ours.reshape(-1)[smallest(weight, pattern, sparsity)] = 0
        assert np.array_equal(ours, OwnPruner.decompress(theirs)), pattern


def test_blocks_too_small_for_float16_squares_are_told_apart():
    """Core ML Tools computes norms in Float16 and would see 8 blocks of norm 0 here, where 4 are asked for."""
    weight = np.array([[1e-4 * (1 + row // 2)] for row in range(16)], np.float16)  # [16, 1]
    assert sorted(smallest(weight, Pattern(along="output", size=2), 0.5)) == list(range(8))


def test_a_tables_entries_are_spent_on_what_is_kept():
    """Core ML Tools' own k-means has one for the zeros, which the mask holds already."""
    model = fold_batchnorm(dense(), SIZE)
    weight = model.get_submodule("features.6").weight
    with torch.no_grad():
        weight.view(-1)[smallest(weight.half().numpy(), Pattern(along="kernel"), 0.5)] = 0
        kept = weight.half().numpy()[weight.numpy() != 0].astype(np.float64)
    sparse = encode_zeros(to_coreml(model, SIZE, joint=True), ["features.6"])
    own = cto.OpPalettizerConfig(mode="kmeans", nbits=2, weight_threshold=0)
    name = f"{weight_name('features.6')}_sparsified"
    theirs = cto.palettize_weights(sparse, cto.OptimizationConfig(op_name_configs={name: own}), joint_compression=True)
    errors = []
    for packed in (palettize_kept(sparse, ["features.6"], 2), theirs):
        entries = cto.get_weights_metadata(cto.decompress_weights(packed), weight_threshold=0)
        (value,) = [entry.val for key, entry in entries.items() if key.startswith("features_6_weight")]
        found = value[weight.detach().numpy() != 0].astype(np.float64)
        assert len(np.unique(found)) <= 4
        errors.append(np.square(found - kept).mean())
    assert errors[0] < 0.95 * errors[1]
