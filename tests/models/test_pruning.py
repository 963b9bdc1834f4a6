"""Pruning and conversion: what each algorithm promises of the saved package, read back with coremltools' own reader."""

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
import yaml
from coremltools.optimize.torch.pruning import MagnitudePruner
from pydantic import ValidationError
from torch import nn

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.batchnorm import fold_batchnorm
from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.conversion import encode_zeros, prune_weights, to_coreml
from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml
from coreml_prune_bench.models.pruning.magnitude_pruner.config import MagnitudePrunerConfig
from coreml_prune_bench.models.pruning.magnitude_pruner.prune import fine_tune
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.post_training.prune import break_ties
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.training import normalize
from coreml_prune_bench.models.weight_names import weight_name
from coreml_prune_bench.runtimes import portable
from tests.latency.noise import Noise
from tests.models.tiny import IN_SCOPE, SIZE, TRAINING, dense, pruned
from tests.tiny_network import TINY, Tiny

CONFIGS = [
    PostTrainingConfig(sparsity=0.75),
    SparseGPTConfig(sparsity=0.75, calibration_samples=32),
    SparseGPTConfig(sparsity=0.5, calibration_samples=32, batchnorm_samples=40),
    MagnitudePrunerConfig(sparsity=0.75, training=TRAINING),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.algorithm}-{config.sparsity}")
def test_the_saved_package_is_as_sparse_as_asked_in_scope_and_dense_elsewhere(config, tmp_path):
    result, _ = pruned(config)
    to_sparse_coreml(result).save(str(tmp_path / "x.mlpackage"))
    package = read_package(tmp_path / "x.mlpackage")
    assert set(result.targets) == IN_SCOPE
    for layer in IN_SCOPE:
        weight = package.weight_of_layer(layer)
        assert weight.storage == "sparse"
        assert weight.sparsity == pytest.approx(config.sparsity, abs=max(0.005, 1 / weight.elements))
    assert package.weight_of_layer("features.3").storage == "dense"
    assert "batch_norm" not in package.operations


@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda config: f"{config.algorithm}-{config.sparsity}")
def test_the_package_predicts_what_the_pruned_torch_network_does(config, tmp_path):
    result, model = pruned(config)
    to_sparse_coreml(result).save(str(tmp_path / "x.mlpackage"))
    images = Noise().images(np.arange(40), None)
    with torch.no_grad():
        expected = model(normalize(images)).numpy()
    found = portable.load(tmp_path / "x.mlpackage").predict_batch({"image": images})["logits"]
    assert np.abs(found - expected).max() < 0.02 * expected.std()


def test_no_value_changes_when_zeros_are_encoded():
    model = dense()
    torch.nn.utils.prune.l1_unstructured(model.features[6], "weight", 0.6)
    torch.nn.utils.prune.remove(model.features[6], "weight")
    before = to_coreml(model, SIZE)
    values = {name: entry.val for name, entry in cto.get_weights_metadata(before, weight_threshold=0).items()}
    after = encode_zeros(before, ["features.6"])
    read_back = cto.decompress_weights(after)
    for name, entry in cto.get_weights_metadata(read_back, weight_threshold=0).items():
        assert np.array_equal(entry.val, values[name.removesuffix("_sparsified")]), name
    types = [op.op_type for op in after._mil_program.functions["main"].operations]
    assert types.count("constexpr_sparse_to_dense") == 1


def test_folding_keeps_the_function_and_the_names():
    model = dense()
    folded = fold_batchnorm(model, SIZE)
    images = torch.rand(3, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.allclose(folded(images), model(images), atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert {name for name, _ in folded.named_parameters()} >= {"features.0.weight", "classifier.weight"}
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_pixels_are_normalized_by_channel_inside_the_program(tmp_path):
    class Channels(nn.Module):
        """Passes the normalized image on, so that what reaches the network can be seen."""

        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Conv2d(3, 3, 1, bias=False)
            nn.init.dirac_(self.same.weight)

        def forward(self, images):
            return self.same(images)

    to_coreml(Channels().eval(), 4).save(str(tmp_path / "x.mlpackage"))
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    found = portable.load(tmp_path / "x.mlpackage").predict_batch({"image": images})["logits"]
    # Float16 constants: the mean is off by at most 1/32 of a level, the scale by 2^-11.
    assert np.abs(found - normalize(images).numpy()).max() < 2e-3


def test_the_model_says_what_it_takes_and_gives():
    spec = to_coreml(dense(), SIZE).get_spec()
    (image,), (logits,) = spec.description.input, spec.description.output
    assert (image.name, image.type.imageType.width, image.type.imageType.height) == ("image", SIZE, SIZE)
    assert image.type.imageType.colorSpace == ct.proto.FeatureTypes_pb2.ImageFeatureType.RGB
    assert (logits.name, list(logits.type.multiArrayType.shape)) == ("logits", [1, 4])
    assert spec.specificationVersion == ct.target.iOS17


def test_without_ties_breaking_them_changes_nothing():
    model = fold_batchnorm(dense(), SIZE)
    weight = model.get_submodule("features.6").weight
    with torch.no_grad():  # 4,608 different Float16 numbers in random order
        distinct = torch.arange(1, weight.numel() + 1, dtype=torch.int16).view(torch.float16).float() * 1e3
        weight.copy_(
            distinct[torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(0))].view_as(weight)
        )
    config = cto.OpMagnitudePrunerConfig(target_sparsity=0.75, weight_threshold=0)
    own = cto.OptimizationConfig(op_name_configs={weight_name("features.6"): config})

    def result() -> np.ndarray:
        decompressed = cto.decompress_weights(prune_weights(to_coreml(model, SIZE), own))
        weights = cto.get_weights_metadata(decompressed, weight_threshold=0)
        (name,) = [name for name in weights if name.startswith(weight_name("features.6"))]
        return weights[name].val

    untouched = result()
    break_ties(weight, 0.75)
    assert np.array_equal(result(), untouched)
    assert (untouched == 0).mean() == pytest.approx(0.75, abs=1e-3)


def test_ties_are_broken_so_that_the_target_is_met():
    weight = nn.Parameter(torch.tensor([1.0, -1.0, 1.0, 2.0, -1.0, 1.0, 3.0, 1.0]))
    break_ties(weight, 0.5)
    assert weight.tolist() == [0, 0, 0, 2, 0, 1, 3, 1]


def test_a_threshold_prunes_what_lies_below_it_and_stores_dense_what_is_less_than_half_zero(tmp_path):
    result, model = pruned(PostTrainingConfig(threshold=0.07))
    to_sparse_coreml(result).save(str(tmp_path / "x.mlpackage"))
    package = read_package(tmp_path / "x.mlpackage")
    assert result.targets == dict.fromkeys(IN_SCOPE, None)
    for layer in IN_SCOPE:
        folded = fold_batchnorm(model, SIZE).get_submodule(layer).weight.detach().half()
        below = int((folded.abs() <= 0.07).sum())
        weight = package.weight_of_layer(layer)
        if below >= folded.numel() / 2:
            assert (weight.storage, weight.zeros) == ("sparse", below)
        else:
            assert (weight.storage, weight.zeros) == ("dense", 0)
    assert {package.weight_of_layer(layer).storage for layer in IN_SCOPE} == {"sparse", "dense"}


def test_what_float16_loses_counts_towards_the_target(tmp_path):
    """A channel that BatchNorm switches off is zero in the Float16 baseline; it must not come on top of the 50 %."""
    model = dense()
    with torch.no_grad():
        model.features[7].weight[:4] = 1e-9
    result, _ = pruned(SparseGPTConfig(sparsity=0.5, calibration_samples=40), model)
    to_sparse_coreml(result).save(str(tmp_path / "x.mlpackage"))
    weight = read_package(tmp_path / "x.mlpackage").weight_of_layer("features.6")
    assert weight.sparsity == pytest.approx(0.5, abs=0.005)


def test_sparse_gpt_beats_magnitude_on_the_error_it_minimizes():
    """The claim of the paper, on the first layer: its output on the calibration images moves less."""
    images = normalize(Noise().images(np.arange(40), None))
    reference = dense()
    gpt = pruned(SparseGPTConfig(sparsity=0.5, calibration_samples=40))[1]
    magnitude = dense()
    weight = magnitude.features[0].weight
    with torch.no_grad():
        weight.view(-1)[weight.abs().flatten().argsort()[: weight.numel() // 2]] = 0
        target = reference.features[0](images)
        error = {
            name: float((m.features[0](images) - target).square().mean()) for name, m in (("g", gpt), ("m", magnitude))
        }
    assert error["g"] < 0.8 * error["m"]


def test_sparse_gpt_does_not_go_beyond_the_target_where_calibration_leaves_inputs_at_zero():
    """Twelve of the sixteen inputs of features.6 never fire: SparseGPT itself would zero 75 % of its weights."""
    model = dense()
    with torch.no_grad():
        model.features[4].bias[:12] = -100.0
    before = model.features[6].weight.detach().clone()
    pruned(SparseGPTConfig(sparsity=0.5, calibration_samples=40), model)
    after = model.features[6].weight.detach()
    assert float((after == 0).float().mean()) == pytest.approx(0.5, abs=0.001)
    unseen, kept = before[:, :12].flatten(), after[:, :12].flatten()
    assert torch.equal(kept[kept != 0], unseen[kept != 0])  # the dense network's, unchanged
    assert unseen[kept != 0].abs().min() >= unseen[kept == 0].abs().max()  # the largest of them


def test_reestimation_changes_batchnorm_and_no_weight():
    plain = pruned(SparseGPTConfig(sparsity=0.75, calibration_samples=32))[1].state_dict()
    again = pruned(SparseGPTConfig(sparsity=0.75, calibration_samples=32, batchnorm_samples=40))[1].state_dict()
    for key in plain:
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(plain[key], again[key]) != ("running" in key), key


def test_batchnorm_before_what_is_pruned_keeps_what_it_knows():
    """Not what the images show, which are few: the dense network was shown others."""
    model = dense()
    known = {key: 3 * value + 1 for key, value in model.state_dict().items() if "running" in key}
    model.load_state_dict(known, strict=False)
    config = SparseGPTConfig(layers={"classifier": 0.5}, calibration_samples=16, batchnorm_samples=16)
    after = pruned(config, model)[1].state_dict()
    for key, value in known.items():
        assert torch.allclose(after[key], value, rtol=1e-4, atol=1e-4), key


def test_sparse_gpt_leaves_convolutions_with_groups_dense_and_says_so():
    config = SparseGPTConfig(sparsity=0.5, calibration_samples=16, scope=Scope())
    result, _ = pruned(config)
    assert set(result.targets) == IN_SCOPE
    assert result.scope == "conv + linear except depthwise"
    everything, _ = pruned(PostTrainingConfig(sparsity=0.5, scope=Scope()))
    assert set(everything.targets) == IN_SCOPE | {"features.3"}
    assert everything.scope == "conv + linear"


def test_the_schedule_reaches_its_target_at_the_share_asked_for_and_stays(monkeypatch):
    seen = []
    step = MagnitudePruner.step

    def spy(self):
        step(self)
        seen.append(float(next(iter(self._pruner_info.values())).sparsity_level))

    monkeypatch.setattr(MagnitudePruner, "step", spy)
    pruned(MagnitudePrunerConfig(sparsity=0.75, pruning_share=0.5, initial_sparsity=0.1, training=TRAINING))
    assert len(seen) == 20  # 4 epochs of 5 batches
    assert seen[0] == pytest.approx(0.1)
    assert seen == sorted(seen)
    assert seen[8] < 0.75
    assert seen[9:] == [0.75] * 11


def test_trials_of_the_pruner_differ_in_the_order_of_the_data():
    config = MagnitudePrunerConfig(sparsity=0.5, training=TRAINING)
    first, again, other = (pruned(config, trial=trial)[1].state_dict() for trial in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


PALETTIZER = {"config_type": "OpPalettizerConfig", "global_config": {"mode": "uniform", "nbits": 4}}
POST_TRAINING_YAML = """
config_type: OpMagnitudePrunerConfig
global_config: {target_sparsity: 0.75, weight_threshold: 100}
op_type_configs: {linear: null}
op_name_configs: {features_0_weight_to_fp16: {n_m_ratio: [1, 2], dim: 0, weight_threshold: 0}}
"""
SPARSE_GPT_YAML = """
module_type_configs: {Conv2d: {algorithm: sparse_gpt, target_sparsity: 0.75, weight_dtype: float32}}
calibration_nsamples: 24
"""
PRUNER_YAML = """
module_name_configs:
  features.6: {scheduler: {update_steps: "range(1, 10, 3)"}, target_sparsity: 0.25}
"""


@pytest.mark.parametrize(
    ("config", "targets"),
    [
        (
            PostTrainingConfig(coremltools=yaml.safe_load(POST_TRAINING_YAML)),
            {"features.0": 0.5, "features.3": 0.75, "features.6": 0.75},
        ),
        (SparseGPTConfig(coremltools=yaml.safe_load(SPARSE_GPT_YAML)), {"features.0": 0.75, "features.6": 0.75}),
        (MagnitudePrunerConfig(coremltools=yaml.safe_load(PRUNER_YAML), training=TRAINING), {"features.6": 0.25}),
    ],
    ids=["post-training", "sparse-gpt", "magnitude-pruner"],
)
def test_core_ml_tools_own_yaml_prunes_what_it_says(config, targets, tmp_path):
    result, _ = pruned(config)
    assert result.targets == targets
    to_sparse_coreml(result).save(str(tmp_path / "x.mlpackage"))
    package = read_package(tmp_path / "x.mlpackage")
    for layer, target in targets.items():
        weight = package.weight_of_layer(layer)
        assert (weight.storage, weight.sparsity) == ("sparse", pytest.approx(target, abs=0.011))
    assert package.weight_of_layer("classifier").storage == "dense"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PostTrainingConfig(coremltools={"config_type": "OpMagnitudePrunerConfig", "global": {}}), "Invalid key"),
        (PostTrainingConfig(coremltools=PALETTIZER), "OpPalettizerConfig does not prune"),
        (SparseGPTConfig(coremltools={"global_config": {"algorithm": "sparse_gpt"}}), "weight_dtype must be float32"),
        (SparseGPTConfig(coremltools={"global_config": {"algorithm": "gptq"}}), "gptq does not prune"),
        (
            MagnitudePrunerConfig(
                coremltools={"global_config": {"scheduler": {"update_steps": [1, 500]}, "target_sparsity": 0.5}},
                training=TRAINING,
            ),
            "ends at step 500, but training has 20 steps",
        ),
        (MagnitudePrunerConfig(coremltools={"global_config": {"target": 0.5}}, training=TRAINING), "not a Core ML"),
    ],
)  # fmt: skip
def test_a_core_ml_tools_config_that_cannot_be_used_is_one_clear_line(config, message):
    with pytest.raises(BenchError, match=message) as raised:
        pruned(config)
    assert "\n" not in str(raised.value)


def test_the_sparsity_follows_the_polynomial_between_its_shares():
    """Zhu and Gupta 2017, equation 1: from the initial to the target sparsity over steps 5 to 15 of 20."""
    model, found = dense(), {}
    config = MagnitudePrunerConfig(
        sparsity=0.75, initial_sparsity=0.1, pruning_start=0.25, pruning_share=0.75, power=2, training=TRAINING
    )

    def progress(step: int, total: int) -> None:
        found[step] = float((model.features[6].weight_mask == 0).float().mean())

    fine_tune(config, PruningTask(TINY, model, SIZE, Noise(), 0, progress))
    expected = {step: 0.75 - 0.65 * (1 - min(max(step - 5, 0), 10) / 10) ** 2 for step in range(1, 21)}
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_schedule_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValidationError, match=r"pruning_start \(0.5\) is not below pruning_share \(0.5\)"):
        MagnitudePrunerConfig(sparsity=0.5, pruning_start=0.5, training=TRAINING)


def test_a_distilled_config_says_so_in_tables():
    config = MagnitudePrunerConfig(sparsity=0.5, distillation={}, training=TRAINING)
    assert config.name == "Unstructured Sparsity 50%, distilled"


def test_the_tiny_network_is_what_these_tests_say():
    assert {name for name, layer in Tiny(4).named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)} == (
        IN_SCOPE | {"features.3"}
    )
