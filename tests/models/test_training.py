"""Training: what it computes, and that trials differ in the order of the data and in nothing else."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

import coreml_prune_bench.models.training
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.models import layout
from coreml_prune_bench.models.config import Distillation, TrainingConfig
from coreml_prune_bench.models.training import (
    IMAGE_MEAN,
    IMAGE_STD,
    Teacher,
    calibration_batches,
    distillation_loss,
    normalize,
    reestimate_batchnorm,
    total_steps,
    train,
)
from coreml_prune_bench.models.weights import untrained_model
from tests.latency.noise import Noise
from tests.tiny_network import TINY


def untrained_with_dropout() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(8, 4)
    return nn.Sequential(untrained_model(TINY, 8), nn.Dropout(0.5), head)


def trained(order_seed: int, data: Noise | None = None, **config) -> nn.Module:
    model = untrained_with_dropout()
    settings = TrainingConfig(**{"epochs": 2, "batch_size": 8, "learning_rate": 0.05} | config)
    train(model, data or Noise(), settings, order_seed=order_seed)
    return model


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


def test_the_same_trial_gives_the_same_weights_and_another_gives_others():
    assert torch.equal(weights(trained(1)), weights(trained(1)))
    assert not torch.equal(weights(trained(1)), weights(trained(2)))


def test_trials_draw_the_same_dropout_whatever_was_drawn_before():
    torch.manual_seed(5)
    first = weights(trained(1))
    torch.manual_seed(6)
    torch.rand(100)
    assert torch.equal(first, weights(trained(1)))


@pytest.mark.parametrize("lying", [torch.contiguous_format, torch.channels_last])
def test_it_is_plain_torch_to_the_last_bit(lying, monkeypatch):
    """The loop that one would write by hand, with torch's own schedule."""
    monkeypatch.setattr(layout, "_fastest", lambda device: lying)
    model, data = untrained_with_dropout().to(memory_format=lying), Noise()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=10)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for epoch in range(2):
            order = np.random.default_rng((1, epoch)).permutation(40)
            for indices in order.reshape(5, 8):
                outputs = model(normalize(data.images(indices, epoch)).contiguous(memory_format=lying))
                loss = nn.functional.cross_entropy(outputs, torch.from_numpy(data.labels(indices)), label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    assert torch.equal(weights(trained(1, label_smoothing=0.1)), weights(model))


def test_mixed_precision_learns_and_keeps_float32_weights(monkeypatch):
    """Where a GPU would, on the CPU: bfloat16 has the range of float32, so that no scaling is needed."""
    monkeypatch.setattr(coreml_prune_bench.models.training, "low_precision", lambda device: torch.bfloat16)
    mixed, full = trained(0, epochs=20), trained(0, epochs=20, mixed_precision=False)
    assert {parameter.dtype for parameter in mixed.parameters()} == {torch.float32}
    assert not torch.equal(weights(mixed), weights(full))
    everything = np.arange(40)
    with torch.no_grad():
        hits = mixed(normalize(Noise().images(everything, None))).argmax(1).numpy() == everything % 4
    assert hits.mean() > 0.8


def test_weight_decay_spares_batchnorm_and_biases_where_told_to():
    decayed, spared = (trained(0, epochs=1, weight_decay=0.5, decay_all=choice) for choice in (True, False))
    undecayed = trained(0, epochs=1, weight_decay=0.0)
    for (name, all_), some, none in zip(
        decayed.named_parameters(), spared.parameters(), undecayed.parameters(), strict=True
    ):
        if some.ndim > 1:
            assert some.norm() < none.norm(), name
        else:
            assert all_.sub(1 if "weight" in name else 0).norm() != some.sub(1 if "weight" in name else 0).norm(), name


def test_distillation_is_hintons_loss():
    draw = torch.Generator().manual_seed(0)
    outputs, taught = torch.randn(5, 7, generator=draw), torch.randn(5, 7, generator=draw)
    p, q = (torch.softmax(values / 4, dim=1) for values in (taught, outputs))
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    found = distillation_loss(torch.tensor(2.0), outputs, taught, Distillation(temperature=4, weight=0.75))
    assert found == pytest.approx(0.25 * 2 + 0.75 * 16 * float(divergence), rel=1e-5)


def test_a_distilled_network_comes_closer_to_its_teacher():
    teacher = trained(0, epochs=20)
    images = normalize(Noise().images(np.arange(40), None))

    def distance(**learning) -> float:
        model = untrained_with_dropout()
        train(model, Noise(), TrainingConfig(epochs=5, batch_size=8, learning_rate=0.05), order_seed=1, **learning)
        with torch.no_grad():
            return float((model(images).softmax(1) - teacher(images).softmax(1)).norm())

    config = Distillation(temperature=2, weight=1)
    assert distance(teacher=Teacher(deepcopy(teacher), config)) < distance()


def test_every_epoch_shows_each_image_once_in_an_order_of_its_own():
    logs = {}
    for seed in (1, 2):
        data = Noise()
        trained(seed, data)
        logs[seed] = [[i for asked, batch in data.asked if asked == epoch for i in batch] for epoch in (0, 1)]
    orders = [order for log in logs.values() for order in log]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_training_lowers_the_loss_and_ends_in_eval_mode():
    data = Noise()
    model = trained(0, data, epochs=40)
    assert not model.training
    everything = np.arange(40)
    with torch.no_grad():
        hits = model(normalize(data.images(everything, None))).argmax(1).numpy() == data.labels(everything)
    assert hits.mean() > 0.9


def test_too_few_images_for_a_batch_is_an_error_of_one_line():
    with pytest.raises(BenchError, match=r"40 training images are fewer than one batch \(batch_size = 64\)"):
        total_steps(40, TrainingConfig(epochs=1))
    assert total_steps(40, TrainingConfig(epochs=3, batch_size=16)) == 6


def test_normalize_is_torchvisions():
    images = Noise().images(np.arange(5), None)
    reference = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGE_MEAN, IMAGE_STD)])
    assert torch.allclose(normalize(images), torch.stack([reference(image) for image in images]), atol=1e-6)


def test_calibration_takes_the_samples_asked_for_always_the_same_ones():
    data = Noise()
    batches = list(calibration_batches(data, 20, 8))
    assert [len(batch) for batch in batches] == [7, 7, 6]
    assert all(torch.equal(a, b) for a, b in zip(batches, calibration_batches(data, 20, 8), strict=True))
    assert sum(len(batch) for batch in calibration_batches(data, 1000, 8)) == 40


def test_reestimated_statistics_are_those_of_the_calibration_images():
    data = Noise()
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(7)
    model = nn.Sequential(norm, nn.Dropout(0.5)).eval()
    reestimate_batchnorm(model, data, samples=40)
    images = torch.cat(list(calibration_batches(data, 40, 64)))  # one batch: its own mean and unbiased variance
    assert torch.allclose(norm.running_mean, images.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(norm.running_var, images.transpose(0, 1).flatten(1).var(1), atol=1e-5)
    assert norm.momentum == 0.1
    assert not any(module.training for module in model.modules())
