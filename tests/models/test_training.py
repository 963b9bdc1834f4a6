"""Training: trials differ in the order of the data and in nothing else; BatchNorm is measured as torch would."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from harness.errors import BenchError
from models.config import TrainingConfig
from models.training import (
    IMAGE_MEAN,
    IMAGE_STD,
    calibration_batches,
    normalize,
    reestimate_batchnorm,
    total_steps,
    train,
)
from models.weights import untrained_model
from tests.tiny_network import TINY


class Noise:
    """Labelled 16x16 noise that keeps a log of what was asked for."""

    def __init__(self, count: int = 40) -> None:
        coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        self._images = coarse.repeat(2, axis=1).repeat(2, axis=2)  # neighbours are alike, as in real images
        self.asked: list[tuple[int, list[int]]] = []

    def __len__(self) -> int:
        return len(self._images)

    def images(self, indices, epoch):
        self.asked.append((epoch, indices.tolist()))
        return self._images[indices]

    def labels(self, indices):
        return indices % 4


def trained(order_seed: int, data: Noise | None = None, **config) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(8, 4)
    model = nn.Sequential(untrained_model(TINY, 8), nn.Dropout(0.5), head)
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
