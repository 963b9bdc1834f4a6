"""The views that a training sees: an image and an epoch determine them, and nothing else."""

import numpy as np
import pytest

from coreml_prune_bench.bench import training_images
from coreml_prune_bench.bench.training_images import TrainingImages
from coreml_prune_bench.data import open_data
from coreml_prune_bench.models.config import TrainingConfig
from coreml_prune_bench.models.training import train
from coreml_prune_bench.models.weights import untrained_model
from tests.tiny_network import TINY


def opened(images, members: np.ndarray, kind: type[TrainingImages] = TrainingImages) -> TrainingImages:
    data = open_data(f"imagefolder:{images}")
    assert data.train
    return kind(data, data.train, members)


@pytest.fixture
def data(images) -> TrainingImages:
    return opened(images, np.arange(12))


def test_a_view_depends_on_the_image_and_the_epoch_and_not_on_the_place(data):
    first = data.images(np.arange(12), 3)
    order = np.array([7, 0, 11, 4])
    assert np.array_equal(data.images(order, 3), first[order])
    assert not np.array_equal(data.images(order, 4), first[order])


def test_an_image_left_out_changes_no_view_of_the_others(data, images):
    fewer = opened(images, np.array([0, 1, 5, 9]))
    assert np.array_equal(fewer.images(np.array([2, 3]), 1), data.images(np.array([5, 9]), 1))
    assert fewer.labels(np.array([2, 3])).tolist() == [1, 2]
    assert len(fewer.skipped) == 8


@pytest.mark.parametrize(("room", "expected"), [(2, [0, 1, 2, 2]), (3, [0, 1, 2])])
def test_a_photograph_is_decoded_once_where_there_is_room(room, expected, images, data, monkeypatch):
    monkeypatch.setattr(training_images, "_MOST_KEPT_BYTES", room * 3 * 32 * 32)
    found = open_data(f"imagefolder:{images}")
    assert found.train
    read: list[int] = []
    image_at = found.train.image
    monkeypatch.setattr(found.train, "image", lambda index: read.append(index) or image_at(index))
    kept = TrainingImages(found, found.train, np.arange(12))
    views = [kept.images(np.arange(3), epoch) for epoch in (1, 2)]
    assert read == expected
    for epoch, seen in zip((1, 2), views, strict=True):
        assert np.array_equal(seen, data.images(np.arange(3), epoch))


def test_trials_see_the_same_views_in_another_order(images):
    def seen(trial: int) -> list[tuple[int, int, bytes]]:
        views: list[tuple[int, int, bytes]] = []

        class Logged(TrainingImages):
            def images(self, indices, epoch):
                made = super().images(indices, epoch)
                if epoch is None:  # looked at, not trained on
                    return made
                views.extend((epoch, int(index), view.tobytes()) for index, view in zip(indices, made, strict=True))
                return made

        config = TrainingConfig(epochs=2, batch_size=4, learning_rate=0.01)
        train(untrained_model(TINY, 3), opened(images, np.arange(12), Logged), config, order_seed=trial)
        return views

    one, two = seen(0), seen(1)
    assert sorted(one) == sorted(two)
    assert len(set(one)) == 24
    assert one != two
