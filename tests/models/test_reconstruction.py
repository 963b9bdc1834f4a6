"""Blockwise reconstruction: what it fits, what it leaves alone, and that it can be stopped and repeated."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from coreml_prune_bench.bench.build.last_made import LastMade
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.models.checkpoints import Checkpoint
from coreml_prune_bench.models.devices import CPU, describe
from coreml_prune_bench.models.pruning.algorithm import prune
from coreml_prune_bench.models.pruning.blockwise_reconstruction.block import (
    BlockError,
    Masks,
    Runner,
    fits_in_bfloat16,
    relative_error,
)
from coreml_prune_bench.models.pruning.blockwise_reconstruction.config import ReconstructionConfig
from coreml_prune_bench.models.pruning.blockwise_reconstruction.prune import (
    calibration_images,
    fit_blocks,
    masks_of,
)
from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml
from coreml_prune_bench.models.pruning.sparse_gpt import prune as sparse_gpt
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.pruning.task import PruningTask
from coreml_prune_bench.models.training import (
    Session,
    calibration_batches,
    calibration_order,
    normalize,
)
from tests.latency.noise import Noise
from tests.models.tiny import SIZE, dense
from tests.tiny_network import TINY

IMAGES = Noise(60)
CONFIG = ReconstructionConfig(
    sparsity=0.75,
    calibration_samples=48,
    held_back_samples=12,
    steps=60,
    batch_size=12,
    rounds=(),
    learning_rates=(0.01, 0.03, 0.1),
)
ROUNDS = CONFIG.model_copy(update={"rounds": (0.5, 0.8), "steps": 20, "learning_rates": (0.03,)})
BLOCK = "coreml_prune_bench.models.pruning.blockwise_reconstruction.block"
PRUNE = "coreml_prune_bench.models.pruning.blockwise_reconstruction.prune"
BLOCKS = 4
"""Of the tiny network, that are fitted."""
PRUNED = ("features.0", "features.6", "classifier")


def task(model: nn.Module, trial: int = 0, **options) -> PruningTask:
    return PruningTask(TINY, model, SIZE, IMAGES, trial, progress=lambda done, total: None, **options)


def reconstructed(trial: int = 0, config: ReconstructionConfig = CONFIG) -> tuple[nn.Module, list[str]]:
    model, said = dense(), []
    prune(config, task(model, trial, say=said.append))
    return model, said


def halved(model: nn.Module) -> tuple[nn.Module, Masks]:
    """The network without every second weight of three layers, and its masks."""
    sparse = deepcopy(model)
    for name in PRUNED:
        sparse.get_submodule(name).weight.data.view(-1)[::2] = 0
    return sparse, masks_of(sparse, PRUNED)


def fit(sparse: nn.Module, model: nn.Module, masks: Masks, config: ReconstructionConfig = CONFIG):
    images = calibration_images(IMAGES, config)
    blocks = fit_blocks(TINY.sequential(sparse), TINY.sequential(model), masks, images, config, seed=(0,), device=CPU)
    return [error for _, error in blocks]


def distance(model: nn.Module, other: nn.Module) -> float:
    """Of the logits of all images."""
    images = normalize(IMAGES.images(np.arange(len(IMAGES)), None))
    with torch.no_grad():
        return float((model(images) - other(images)).square().mean())


def test_the_output_comes_closer_to_the_dense_networks_than_sparsegpts_does():
    reference, start = dense(), dense()
    prune(SparseGPTConfig(sparsity=0.75, calibration_samples=36, batchnorm_samples=48), task(start))
    fitted, _ = reconstructed()
    assert distance(fitted, reference) < 0.7 * distance(start, reference)


def test_the_package_is_as_sparse_as_asked_and_pruned_weights_stay_zero(tmp_path):
    model = dense()
    result = prune(CONFIG, task(model))
    to_sparse_coreml(result).save(str(tmp_path / "x.mlpackage"))
    package = read_package(tmp_path / "x.mlpackage")
    assert result.targets == dict.fromkeys(PRUNED, 0.75)
    for layer in PRUNED:
        weight = package.weight_of_layer(layer)
        assert (weight.storage, weight.sparsity) == ("sparse", pytest.approx(0.75, abs=max(0.005, 1 / weight.elements)))


def test_only_the_weights_that_stay_are_changed():
    model = dense()
    sparse, masks = halved(model)
    before = {name: value.clone() for name, value in sparse.state_dict().items()}
    errors = fit(sparse, model, masks)
    helped = {error.block.replace("/", ".") for error in errors if error.fitted_after < error.fitted_before}
    assert helped >= {"features.0", "features.6"}
    for name, value in sparse.state_dict().items():
        layer = name.removesuffix(".weight")
        if layer in masks:
            assert torch.equal(value != 0, masks[layer] == 1)
        is_layer = isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Conv2d | nn.Linear)
        is_weight = is_layer and value.ndim > 1 and layer in helped
        is_statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(value, before[name]) != (is_weight or is_statistic), name


def test_the_rows_of_the_head_count_where_it_is_pruned_and_nowhere_else():
    model = dense()
    with_rows, without = (halved(model)[0] for _ in range(2))
    _, masks = halved(model)
    images = calibration_images(IMAGES, CONFIG)
    for sparse, head in ((with_rows, ["classifier"]), (without, [])):
        config = CONFIG.model_copy(update={"class_rows": 10.0, "learning_rates": (0.03,)})
        blocks = fit_blocks(
            TINY.sequential(sparse), TINY.sequential(model), masks, images, config, head=head, seed=(0,), device=CPU
        )
        assert "classifier" in [error.block for _, error in blocks]
    rows = model.classifier.weight - model.classifier.weight.mean(0)

    def off(sparse: nn.Module) -> float:
        return float(((sparse.classifier.weight - model.classifier.weight) @ rows.t()).square().mean())

    assert off(with_rows) < 0.9 * off(without)
    assert torch.equal(with_rows.features[6].weight, without.features[6].weight)


def test_where_nothing_is_pruned_nothing_changes():
    model = dense()
    same = deepcopy(model)
    masks = masks_of(same, PRUNED)
    assert all(mask.all() for mask in masks.values())
    assert fit(same, model, masks) == []
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), model.state_dict().values(), strict=True))


def test_stages_before_the_first_zero_are_left_as_they_are():
    model = dense()
    sparse = deepcopy(model)
    sparse.get_submodule("classifier").weight.data.view(-1)[::2] = 0
    errors = fit(sparse, model, masks_of(sparse, ["classifier"]))
    assert [error.block for error in errors] == [list(TINY.sequential(model)._modules)[-1]]
    assert torch.equal(sparse.get_submodule("features.0").weight, model.get_submodule("features.0").weight)
    assert errors[0].fitted_after < errors[0].fitted_before


def test_a_block_that_no_rate_helps_on_images_held_back_keeps_its_weights():
    model = dense()
    sparse, masks = halved(model)
    before = {name: value.clone() for name, value in sparse.named_parameters()}
    errors = fit(sparse, model, masks, CONFIG.model_copy(update={"learning_rates": (100.0,)}))
    assert all(error.fitted_after == error.fitted_before for error in errors)
    assert errors
    assert all(torch.equal(value, before[name]) for name, value in sparse.named_parameters())


def test_a_block_takes_the_rate_that_errs_least_on_images_held_back():
    def first(*rates: float) -> BlockError:
        model = dense()
        sparse, masks = halved(model)
        return fit(sparse, model, masks, CONFIG.model_copy(update={"learning_rates": rates}))[0]

    slow, fast = first(0.001), first(0.1)
    assert slow.held_back_after != fast.held_back_after
    assert first(0.001, 0.1) == first(0.1, 0.001) == min(slow, fast, key=lambda error: error.held_back_after)


def test_errors_are_told_of_the_images_fitted_to_and_of_those_held_back():
    _, said = reconstructed()
    assert len(said) >= 2
    assert all("error" in line and "held back" in line for line in said)


def test_the_error_is_the_squared_difference_over_the_variance():
    expected = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).half()
    found = torch.tensor([[1.0, 3.0], [5.0, 9.0]]).half()
    assert relative_error(found, expected) == pytest.approx(1.0 / 5.0)  # 4 / 4 over ((9 + 1 + 1 + 9) / 4)


def test_the_same_trial_gives_the_same_weights_and_another_one_others():
    (first, said), (again, repeated), (other, _) = reconstructed(0), reconstructed(0), reconstructed(1)
    assert said == repeated
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.get_submodule("classifier").weight, other.get_submodule("classifier").weight)
    zeros = [model.get_submodule("classifier").weight == 0 for model in (first, other)]
    assert torch.equal(*zeros)  # trials differ in the order of images alone


class _Stop(Exception):
    pass


def _of_blocks(said):
    """Without what is told before the zeros of a round are chosen."""
    return [line for line in said if ": error" in line]


def test_trials_begin_with_the_same_zeros_which_are_chosen_once(monkeypatch):
    chosen = []
    sparsify = sparse_gpt.sparsify
    monkeypatch.setattr(sparse_gpt, "sparsify", lambda *given: chosen.append(1) or sparsify(*given))
    start = LastMade()
    config = CONFIG.model_copy(update={"steps": 5})
    for trial in range(2):
        model = dense()
        prune(config, task(model, trial, once=lambda make: start.get("a config", make)))
        alone, _ = reconstructed(trial, config)
        assert all(map(torch.equal, model.state_dict().values(), alone.state_dict().values()))
    assert len(chosen) == 1 + 2  # for both trials, and for each alone


@pytest.mark.parametrize(
    ("config", "stopped_at"),
    [(CONFIG, 2), (ROUNDS, 2), (ROUNDS, 5), (ROUNDS, 6), (ROUNDS, 11)],
    ids=["only round", "first", "second's first block", "second's second block", "third"],
)
def test_what_was_stopped_goes_on_after_the_last_block(config, stopped_at, tmp_path):
    expected, said = reconstructed(config=config)
    checkpoint = Checkpoint(tmp_path / "checkpoint", "key", interval_s=0, warn=pytest.fail)
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.extend(_of_blocks([line]))
        if len(lines) == stopped_at:
            raise _Stop

    session = Session(checkpoint=checkpoint)
    with pytest.raises(_Stop):
        prune(config, task(dense(), session=session, say=stop))
    assert checkpoint.load()["round"] == (stopped_at - 2) // BLOCKS
    model = dense()
    prune(config, task(model, session=session, say=lambda line: lines.extend(_of_blocks([line]))))
    said = _of_blocks(said)
    assert [*said[:stopped_at], *said[stopped_at - 1 :]] == lines  # blocks before the one that was lost stay fitted
    for a, b in zip(model.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_rounds_become_sparser_and_choose_zeros_in_the_network_that_was_fitted(monkeypatch):
    asked, before = [], []
    sparsify = sparse_gpt.sparsify

    def spy(config, given, unpruned):
        asked.append(dict(config.layers) or config.sparsity)
        before.append([float((given.model.get_parameter(f"{name}.weight") == 0).float().mean()) for name in PRUNED])
        return sparsify(config, given, unpruned)

    monkeypatch.setattr(sparse_gpt, "sparsify", spy)
    model, said = reconstructed(config=ROUNDS)
    blocks = [line.split(":")[0].removeprefix("round 1 of 3, ") for line in said[:BLOCKS]]
    rounds = [[f"round {number} of 3, {block}" for block in blocks] for number in (1, 2, 3)]
    for number, lines in enumerate(rounds[1:], start=2):
        lines.insert(0, f"round {number} of 3, choosing which weights go")
    expected = [line for lines in rounds for line in lines]
    assert [line.split(":")[0] for line in said] == expected
    assert asked == [pytest.approx(0.375), pytest.approx(0.6), 0.75]
    for found, expected in zip(before, (0, 0.375, 0.6), strict=True):
        assert found == pytest.approx([expected] * len(PRUNED), abs=0.03)
    for name in PRUNED:
        zeros = (model.get_parameter(f"{name}.weight") == 0).float().mean()
        assert float(zeros) == pytest.approx(0.75, abs=0.02)


def test_the_rounds_of_a_config():
    config = ReconstructionConfig(sparsity=0.8, layers={"a": 0.5, "b": 0}, rounds=(0.5, 0.9), steps=40)
    found = [(one.sparsity, dict(one.layers), one.steps) for one in config.in_rounds()]
    expected = [(0.4, {"a": 0.25, "b": 0}, 20), (0.72, {"a": 0.45, "b": 0}, 20), (0.8, {"a": 0.5, "b": 0}, 40)]
    for (sparsity, layers, steps), (expected_sparsity, expected_layers, expected_steps) in zip(
        found, expected, strict=True
    ):
        assert sparsity == pytest.approx(expected_sparsity)
        assert layers == pytest.approx(expected_layers)
        assert steps == expected_steps


def test_progress_counts_all_rounds():
    seen: list[tuple[int, int]] = []
    given = replace(task(dense()), progress=lambda done, total: seen.append((done, total)))
    prune(ROUNDS, given)
    fitting = [(done, total) for done, total in seen if total == max(total for _, total in seen)]
    assert [done for done, _ in fitting] == list(range(1, fitting[0][1] + 1))


@pytest.mark.parametrize("rounds", [(0.9, 0.5), (0.5, 0.5), (1.0,)])
def test_rounds_that_do_not_rise_are_refused(rounds):
    with pytest.raises(ValidationError, match="rounds"):
        ReconstructionConfig(sparsity=0.5, rounds=rounds)


def test_images_fitted_to_are_shown_as_in_evaluation_and_augmented_those_held_back_only_as_in_evaluation():
    data = Noise(60)
    chosen = calibration_images(data, CONFIG.model_copy(update={"views": 3}))
    assert (len(chosen.images), chosen.plain, chosen.held_back) == (3 * 36 + 12, 36, 12)
    plain = torch.cat(list(calibration_batches(Noise(60), 48, 48))).half()
    assert torch.equal(torch.cat([chosen.images[:36], chosen.images[-12:]]), plain)
    order = calibration_order(data, 48).tolist()
    asked = {epoch: [image for e, images in data.asked if e == epoch for image in images] for epoch in (None, 1, 2)}
    assert asked == {None: order, 1: order[:36], 2: order[:36]}
    start = CONFIG.start()
    assert start.calibration_samples == 36
    fitted = torch.cat(list(calibration_batches(data, start.calibration_samples, 16)))
    assert torch.equal(chosen.images[:36], fitted.half())  # SparseGPT sees none that is held back


def test_zeros_may_be_those_of_the_smallest_weights():
    model = dense()
    expected = {name: smallest_zeroed(model.get_submodule(name).weight) for name in PRUNED}
    fitted, said = reconstructed(config=CONFIG.model_copy(update={"zeros": "magnitude"}))
    assert said
    for name, zeros in expected.items():
        assert torch.equal(fitted.get_submodule(name).weight == 0, zeros)


def smallest_zeroed(weight: torch.Tensor) -> torch.Tensor:
    """Which weights are among the three quarters that are smallest."""
    zeros = torch.zeros(weight.numel(), dtype=torch.bool)
    zeros[weight.half().abs().flatten().argsort(stable=True)[: math.ceil(0.75 * weight.numel())]] = True
    return zeros.view(weight.shape)


def test_activations_on_disk_give_the_same_and_leave_nothing_there(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sizes = []
    monkeypatch.setattr(
        torch, "from_file", lambda *a, from_file=torch.from_file, **k: sizes.append(k["size"]) or from_file(*a, **k)
    )
    (in_memory, said), (on_disk, told) = (
        reconstructed(config=CONFIG.model_copy(update={"activations": where})) for where in ("memory", "disk")
    )
    assert said == told
    assert sizes
    assert list(tmp_path.glob("activations-*")) == []
    for a, b in zip(in_memory.state_dict().values(), on_disk.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_are_kept_as_the_block_lays_them_out(on_disk, layout):
    """Of more images than pass together."""
    block = nn.Conv2d(3, 5, 3).to(memory_format=layout)
    images = torch.randn(50, 3, 20, 16).half()
    outputs = Runner(CPU, on_disk)(block, images.contiguous(memory_format=layout))
    with torch.no_grad():
        expected = block(images.float()).half()
    assert outputs.dtype == torch.float16
    torch.testing.assert_close(outputs, expected)
    assert outputs.is_contiguous(memory_format=layout)


def test_a_cpu_that_multiplies_bfloat16_fits_in_it_as_closely_and_keeps_float32(monkeypatch):
    def fitted(config: ReconstructionConfig, *, has_units: bool) -> tuple[nn.Module, tuple[str, ...]]:
        monkeypatch.setattr(f"{PRUNE}.fits_in_bfloat16", lambda network, device: has_units)
        model = dense()
        return model, prune(config, task(model)).devices

    exact, exactly = fitted(CONFIG, has_units=False)
    mixed, mixedly = fitted(CONFIG, has_units=True)
    chosen, as_chosen = fitted(CONFIG.model_copy(update={"mixed_precision": False}), has_units=True)
    assert all(map(torch.equal, chosen.state_dict().values(), exact.state_dict().values()))
    assert not torch.equal(mixed.classifier.weight, exact.classifier.weight)
    assert {value.dtype for value in mixed.parameters()} == {torch.float32}
    assert distance(mixed, dense()) == pytest.approx(distance(exact, dense()), rel=0.1)
    assert (exactly, as_chosen, mixedly) == ((describe(CPU),), (describe(CPU),), (f"{describe(CPU)} in bfloat16",))


@pytest.mark.parametrize(
    ("network", "device", "fits"),
    [
        (nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()), "cpu", True),
        (nn.Linear(8, 8), "cpu", True),
        (nn.Sequential(nn.Conv2d(8, 8, 1), nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))), "cpu", False),
        (nn.Linear(8, 8), "cuda", False),
    ],
)
def test_networks_with_grouped_convolutions_are_fitted_in_float32(network, device, fits, monkeypatch):
    monkeypatch.setattr(f"{BLOCK}.multiply_bfloat16", lambda: True)
    assert fits_in_bfloat16(network, torch.device(device)) == fits
    monkeypatch.setattr(f"{BLOCK}.multiply_bfloat16", lambda: False)
    assert not fits_in_bfloat16(network, torch.device(device))


def test_one_image_is_refused_in_one_line():
    with pytest.raises(BenchError, match="needs two training images, one to hold back; there are 1"):
        calibration_images(Noise(1), CONFIG)


def test_few_images_are_enough_to_hold_some_back():
    assert calibration_images(Noise(6), CONFIG).held_back == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"calibration_samples": 20, "held_back_samples": 12}, "leaves less than half"),
        ({"learning_rates": (0.1, 0)}, "greater than 0"),
        ({"zeros": "magnitude", "sparsity": None, "coremltools": {}}, "leave out 'zeros'"),
        ({"n_m_ratio": [2, 4]}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ReconstructionConfig(**{"sparsity": 0.5} | values)


def test_a_core_ml_tools_config_chooses_the_layers():
    own = {
        "module_name_configs": {
            "classifier": {"algorithm": "sparse_gpt", "target_sparsity": 0.5, "weight_dtype": "float32"}
        }
    }
    result = prune(
        ReconstructionConfig(coremltools=own, calibration_samples=48, held_back_samples=12, steps=5), task(dense())
    )
    assert result.targets == {"classifier": 0.5}
    with pytest.raises(BenchError, match="not a Core ML Tools config"):
        prune(ReconstructionConfig(coremltools={"nonsense": 1}), task(dense()))
