"""The sample images that are shared beside the project."""

import numpy as np
import pytest
from PIL import Image

from coreml_prune_bench.data import (
    load_images,
    open_data,
)
from tests.data.samples import train_of
from tests.sample import SAMPLE, needs_sample


@needs_sample
def test_the_imagenet_sample() -> None:
    data = open_data(f"imagefolder:{SAMPLE / 'imagenet-sample'}")
    assert (len(train_of(data)), len(data.val), len(data.classes), data.image_size) == (300, 700, 1000, 224)
    folder = data.val.ids[0].split("/")[1]
    assert data.classes[data.val.labels[0]] == folder


@needs_sample
@pytest.mark.usefixtures("hub_cache")
def test_the_cifar_subset() -> None:
    data = open_data(f"hf:{SAMPLE / 'cifar10-subset'}")
    assert (len(train_of(data)), len(data.val), len(data.classes), data.image_size) == (20_000, 5_000, 10, 32)
    assert data.classes[0] == "airplane"
    assert load_images(data.val, [0, 4999], 32).shape == (2, 32, 32, 3)


@needs_sample
def test_original_photographs_are_preprocessed_as_torchvision_does() -> None:
    from torchvision import transforms

    split = open_data(f"imagefolder:{SAMPLE / 'imagenet-original'}").val
    reference = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    indices = list(range(0, len(split), 10))
    files = [SAMPLE / "imagenet-original" / split.ids[index] for index in indices]
    expected = np.stack([np.array(reference(Image.open(file).convert("RGB"))) for file in files])
    assert np.array_equal(load_images(split, indices, 224), expected)
