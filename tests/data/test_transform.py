"""Preprocessing, bit for bit torchvision's, and augmentation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coreml_prune_bench.data import (
    augment,
    open_data,
    preprocess,
)
from tests.data.samples import noise, save


@pytest.mark.parametrize("size", [(256, 256), (257, 301), (301, 257), (100, 75), (223, 640), (256, 511), (641, 256)])
@pytest.mark.parametrize("image_size", [224, 32, 97])
def test_preprocess_is_bit_exact_to_torchvision(size: tuple[int, int], image_size: int) -> None:
    from torchvision import transforms  # type: ignore[import-untyped]

    image = noise(*size)
    resize = transforms.Resize(256 if image_size == 224 else image_size)
    expected = np.array(transforms.Compose([resize, transforms.CenterCrop(image_size)])(image))
    actual = preprocess(image, image_size)
    assert actual.dtype == np.uint8
    assert np.array_equal(actual, expected)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "jpg"), ("CMYK", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "png"), ("1", "png")]
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = save(tmp_path / f"val/cat/a.{suffix}", noise(60, 50).convert(mode))
    image = open_data(f"imagefolder:{tmp_path}").val.image(0)
    assert image.mode == "RGB"
    assert np.array_equal(np.array(image), np.array(Image.open(path).convert("RGB")))


def coordinates(width: int, height: int) -> Image.Image:
    """Red is x and green is y, so that a view tells which part of the image it shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x], 2).round().astype(np.uint8))


def test_augment_shows_parts_within_scale_and_ratio_and_flips_half_of_them() -> None:
    image = coordinates(256, 256)
    views = [augment(image, 64, (7, 0, index)).astype(float) for index in range(400)]
    widths = np.array([np.ptp(view[:, :, 0]) + 1 for view in views]) / 256
    heights = np.array([np.ptp(view[:, :, 1]) + 1 for view in views]) / 256
    area, ratio = widths * heights, widths / heights
    # Averaging at the border of a view costs up to a pixel of 64 a side.
    assert 0.22 < area.min() < 0.30
    assert area.max() > 0.9
    assert 0.72 < ratio.min() < 0.85
    assert 1.2 < ratio.max() < 1.39
    flipped = np.mean([view[0, 0, 0] > view[0, -1, 0] for view in views])
    assert 0.4 < flipped < 0.6  # 4 standard deviations of 400 throws
    assert all(view[0, 0, 1] < view[-1, 0, 1] for view in views)  # never upside down


def test_augment_depends_on_the_seed_alone() -> None:
    image = noise(80, 60)
    assert np.array_equal(augment(image, 32, (1, 2, 3)), augment(image, 32, (1, 2, 3)))
    views = {augment(image, 32, seed).tobytes() for seed in [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3)]}
    assert len(views) == 4


@pytest.mark.parametrize("size", [(1, 1), (400, 3), (3, 400)])
def test_augment_takes_images_of_any_shape(size: tuple[int, int]) -> None:
    assert augment(noise(*size), 32, (0,)).shape == (32, 32, 3)
