"""Sparsity patterns and joint storage: what each mode promises, read back by coremltools itself."""

from collections.abc import Callable
from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.optimize.coreml._quantization_passes import prune_weights as OwnPruner
from pydantic import ValidationError

from coreml_prune_bench.bench.cells import Cell, lay_out
from coreml_prune_bench.bench.precheck import refuse_impossible
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.bench.verify import check_package
from coreml_prune_bench.core.errors import BenchError, CellFailedError
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.conversion import (
    encode_zeros,
    fold_batchnorm,
    folded_scales,
    palettize_kept,
    to_coreml,
    weight_name,
)
from coreml_prune_bench.models.pattern import Pattern, smallest
from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml
from coreml_prune_bench.models.pruning.magnitude_pruner.config import MagnitudePrunerConfig
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.pruning.task import layer_sparsities, scope_in_words
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.published.table import published_counterpart, read_table
from coreml_prune_bench.runtimes import portable
from tests.latency.noise import Noise
from tests.models.test_pruning import SIZE, TRAINING, dense, pruned
from tests.tiny_network import TINY

THREE_INPUTS = {"features.0": 0}
LAYERS = ("features.0", "features.6", "classifier")
IMAGES = Noise().images(np.arange(40), None)


def post(**changes) -> PostTrainingConfig:
    return PostTrainingConfig(**changes)


def gpt(**changes) -> SparseGPTConfig:
    return SparseGPTConfig(calibration_samples=40, **changes)


def magnitude(**changes) -> MagnitudePrunerConfig:
    return MagnitudePrunerConfig(training=TRAINING, **changes)


# --- the patterns by hand, on [C_out, C_in, kH, kW]


def anywhere(weight: np.ndarray) -> bool:
    return True


def of_inputs(n: int, m: int) -> Callable[[np.ndarray], bool]:
    return lambda w: ((w.reshape(len(w), w.shape[1] // m, m, -1) == 0).sum(axis=2) == n).all()


def of_outputs(n: int, m: int) -> Callable[[np.ndarray], bool]:
    return lambda w: ((w.reshape(len(w) // m, m, -1) == 0).sum(axis=1) == n).all()


def of_rows(n: int, m: int) -> Callable[[np.ndarray], bool]:
    return lambda w: ((w.reshape(-1, m) == 0).sum(axis=1) == n).all()


def output_blocks(size: int) -> Callable[[np.ndarray], bool]:
    return lambda w: np.isin((w.reshape(len(w) // size, size, -1) == 0).sum(axis=1), (0, size)).all()


def input_blocks(size: int) -> Callable[[np.ndarray], bool]:
    return lambda w: np.isin((w.reshape(len(w), w.shape[1] // size, size, -1) == 0).sum(axis=2), (0, size)).all()


def channels(w: np.ndarray) -> bool:
    return all((channel == 0).all() or (channel != 0).all() for channel in w)


def kernels(w: np.ndarray) -> bool:
    return all((kernel == 0).all() or (kernel != 0).all() for channel in w for kernel in channel)


def values(path: Path) -> dict[str, np.ndarray]:
    """Every pruned layer's weight as coremltools itself decompresses it."""
    model = cto.decompress_weights(ct.models.MLModel(str(path), skip_model_load=True))
    found = {name: entry.val for name, entry in cto.get_weights_metadata(model, weight_threshold=0).items()}
    return {
        layer: next(value for name, value in found.items() if name.startswith(layer.replace(".", "_") + "_weight"))
        for layer in LAYERS
    }


SPARSE, QUANTIZED, PALETTIZED = "sparse", "sparse + blockwise-quantized", "sparse + palettized"

MODES = [
    (post(n_m_ratio=(2, 4), layers=THREE_INPUTS), of_inputs(2, 4), SPARSE, 16),
    (post(n_m_ratio=(3, 4), dim=0), of_outputs(3, 4), SPARSE, 16),
    (post(sparsity=0.5, block_size=2), output_blocks(2), SPARSE, 16),
    (post(sparsity=0.5, block_size=4, dim=1, layers=THREE_INPUTS), input_blocks(4), SPARSE, 16),
    (post(sparsity=0.5, quantize_bits=4), anywhere, QUANTIZED, 4),
    (post(n_m_ratio=(2, 4), layers=THREE_INPUTS, palettize_bits=6), of_inputs(2, 4), PALETTIZED, 6),
    (post(sparsity=0.5, layers={"features.6": 0.75, "Linear": 0}), anywhere, SPARSE, 16),
    (gpt(n_m_ratio=(2, 4), layers=THREE_INPUTS), of_rows(2, 4), SPARSE, 16),
    (gpt(sparsity=0.5, weight_dtype="uint8"), anywhere, QUANTIZED, 8),
    (gpt(n_m_ratio=(1, 2), weight_dtype="uint8", layers=THREE_INPUTS, batchnorm_samples=40), anywhere, QUANTIZED, 8),
    (magnitude(n_m_ratio=(2, 4), layers=THREE_INPUTS), of_inputs(2, 4), SPARSE, 16),
    (magnitude(sparsity=0.5, block_size=2), output_blocks(2), SPARSE, 16),
    (magnitude(sparsity=0.75, granularity="per_channel", layers={"Linear": 0}), channels, SPARSE, 16),
    (magnitude(sparsity=0.5, granularity="per_kernel", layers={"Linear": 0}), kernels, SPARSE, 16),
]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    path = tmp_path_factory.mktemp("dense") / "x.mlpackage"
    to_coreml(dense(), SIZE).save(str(path))
    return read_package(path)


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


# --- what a package must not be


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


# --- the algorithms


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


# --- which layers, how much


def test_the_first_key_of_layers_that_matches_decides():
    config = post(sparsity=0.5, layers={"features.6": 0.9, "Conv2d": 0.25, "features.*": 0.1, "Linear": 0})
    assert layer_sparsities(config, TINY, dense()) == {"features.0": 0.25, "features.6": 0.9}
    assert config.target_sparsity is None
    assert config.name == "Unstructured Sparsity 50%, features.6 90%, Conv2d 25%, features.* 10%"
    assert scope_in_words(config, TINY, dense()) == "conv + linear except depthwise, Linear"


def test_layers_alone_leave_all_others_dense():
    config = gpt(layers={"features.6": 0.75})
    assert layer_sparsities(config, TINY, dense()) == {"features.6": 0.75}
    assert scope_in_words(config, TINY, dense()) == "features.6"


def test_the_order_of_layers_makes_another_cell(tmp_path):
    def key(layers: str) -> str:
        text = 'description = "d"\nmodels = ["tiny"]\nweights = "none"\ndata.default = "digits"\ntraining.epochs = 1\n'
        text += f'[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\nlayers = {{ {layers} }}\n'
        (tmp_path / "own.toml").write_text(text)
        return lay_out(load_suite(str(tmp_path / "own.toml")), None)[1].build_key

    assert key('"features.0" = 0.25, "Conv2d" = 0') != key('"Conv2d" = 0, "features.0" = 0.25')


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


# --- what cannot be


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            post(n_m_ratio=(2, 4)),
            r"tiny: features.0 \[16, 3, 3, 3\] cannot have '2:4 Sparsity': its 3 input channels are no multiple of 4; "
            r'leave what cannot dense: layers = { "features.0" = 0 }',
        ),
        (gpt(n_m_ratio=(2, 4)), r"features.0 \[16, 3, 3, 3\] .*: its 27 inputs, kernel positions among them, are"),
        (post(n_m_ratio=(1, 3), dim=0), r'"features.0" = 0, "features.6" = 0, "classifier" = 0'),
        (post(sparsity=0.5, block_size=10), r"features.0 .*: its 16 output channels are not two blocks of 10"),
        (magnitude(sparsity=0.5, granularity="per_channel"), r"classifier \[4, 128\] .*: a linear layer has no cha"),
        (
            post(n_m_ratio=(2, 4), scope=Scope(exclude=("features.0",))),
            r"features.3 \[16, 1, 3, 3\] .*: its 1 input channels are no multiple of 4",
        ),
    ],
)  # fmt: skip
def test_what_a_layer_cannot_take_is_one_line_with_the_layer_its_shape_and_the_fix(config, message):
    with pytest.raises(BenchError, match=message) as raised:
        pruned(config)
    assert "\n" not in str(raised.value)


def suite_file(tmp_path: Path, config: str) -> Path:
    """A network that takes long to train, pruned as usual and then as `config` says."""
    path = tmp_path / "own.toml"
    path.write_text(
        'description = "d"\nmodels = ["tiny"]\nweights = "none"\ndata.default = "digits"\ntraining.epochs = 1000\n'
        '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.75\n'
        f'[[configs]]\nalgorithm = "post-training"\n{config}\n'
    )
    return path


@pytest.mark.parametrize(
    ("command", "config", "message"),
    [
        ("run", "n_m_ratio = [2, 4]", "features.0 [16, 3, 3, 3] cannot have '2:4 Sparsity'"),
        ("build", 'sparsity = 0.5\nlayers = { "feature.0" = 0 }', "layers: 'feature.0' decides over no layer in scope"),
    ],
)
def test_it_is_refused_before_anything_is_built(refused, tmp_path, command, config, message):
    assert message in refused(command, "--suite", suite_file(tmp_path, config), "--results", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_key_of_layers_can_be_for_another_network_and_must_be_the_first_for_some_layer(tmp_path):
    def cells(layers: str) -> list[Cell]:
        return lay_out(load_suite(str(suite_file(tmp_path, f"sparsity = 0.5\nlayers = {{ {layers} }}"))), None)

    refuse_impossible(cells('"layer4.*" = 0.75'))
    with pytest.raises(BenchError, match=r"layers: 'features\.0' decides over no layer"):
        refuse_impossible(cells('Conv2d = 0.25, "features.0" = 0.1'))


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (post, {"sparsity": 0.5, "n_m_ratio": (2, 4)}, "given: sparsity, n_m_ratio"),
        (post, {"n_m_ratio": (4, 4)}, "0 < n < m"),
        (post, {"n_m_ratio": (2, 4), "block_size": 2}, "block_size: n_m_ratio and coremltools_yaml have"),
        (post, {"sparsity": 0.5, "dim": 1}, "dim: it is the dimension of blocks or of n:m"),
        (post, {"threshold": 0.1, "block_size": 2}, "a threshold is for single weights"),
        (post, {"n_m_ratio": (2, 4), "layers": {"a": 0.5}}, "all are 2:4 sparse"),
        (post, {"sparsity": 0.5, "layers": {"a": 1}}, "'a': expected a sparsity from 0 to less than 1, got 1"),
        (post, {"layers": {"a": 0}}, "give exactly one of"),
        (post, {"sparsity": 0.5, "quantize_bits": 8, "palettize_bits": 4}, "give one"),
        (gpt, {"sparsity": 0.5, "weight_dtype": "uint8", "quantize_bits": 8}, "quantizes already"),
        (magnitude, {"sparsity": 0.5, "block_size": 2, "dim": 1}, "blocks are of output channels"),
        (magnitude, {"n_m_ratio": (2, 4), "granularity": "per_kernel"}, "granularity: .* leave it out"),
        (magnitude, {"n_m_ratio": (2, 4), "initial_sparsity": 0.1}, "n:m sparsity starts from 0"),
        (magnitude, {"n_m_ratio": (29, 50)}, "rounds 29:50 down to 28:50"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config, settings, message):
    with pytest.raises(ValidationError, match=message):
        config(**settings)


# --- in words


def test_configs_are_named_by_their_mode():
    assert {config.name for config, *_ in MODES} == {
        "2:4 Sparsity",
        "3:4 Sparsity, along output channels",
        "Block Structured Sparsity 50%, 2 output channels",
        "Block Structured Sparsity 50%, 4 input channels",
        "Unstructured Sparsity 50%, then 4-bit quantized",
        "2:4 Sparsity, then 6-bit palettized",
        "Unstructured Sparsity 50%, features.6 75%",
        "Unstructured Sparsity 50%, jointly 8-bit",
        "1:2 Sparsity, jointly 8-bit, BatchNorm re-estimated",
        "Per-Channel Sparsity 75%",
        "Per-Kernel Sparsity 50%",
    }


@pytest.mark.parametrize(
    ("config", "has_one"), [(post(sparsity=0.5), True)] + [(config, False) for config, *_ in MODES]
)
def test_a_published_counterpart_is_of_single_weights_by_one_share_in_float16(config, has_one):
    settings = config.model_dump(mode="json")
    found = published_counterpart(read_table(), "ResNet50", 0.5, settings)
    assert (found.config if found else None) == ("Unstructured Sparsity 50%" if has_one else None)


def test_the_suite_of_modes_has_eight_or_more_at_half_for_each_network():
    suite = load_suite("modes")
    for network in suite.models:
        names = {(config.algorithm, config.name) for config in suite.configs if config.is_for(network)}
        assert len(names) == sum(config.is_for(network) for config in suite.configs) >= 8
