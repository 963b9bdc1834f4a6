"""Images that nobody took."""

import numpy as np

from coreml_prune_bench.models.synthetic_images import SyntheticImages

SIZE = 96
CORNERS = [
    [160, 169, 176, 162, 181, 186, 146, 158, 162, 165, 186, 190],
    [8, 23, 2, 23, 43, 7, 15, 26, 5, 26, 38, 13],
    [174, 94, 162, 141, 104, 162, 141, 108, 127, 122, 139, 130],
    [211, 213, 179, 165, 164, 173, 143, 132, 133, 112, 115, 69],
]
"""Red, green and blue of the four corners of the first four images."""


def drawn(count: int, epoch: int | None = None) -> np.ndarray:
    return SyntheticImages(SIZE).images(np.arange(count), epoch)


def test_each_number_has_an_image_of_its_own_always_the_same() -> None:
    images = drawn(6)
    assert (images.dtype, images.shape) == (np.uint8, (6, SIZE, SIZE, 3))
    assert len({image.tobytes() for image in images}) == 6
    assert np.array_equal(SyntheticImages(SIZE).images(np.array([4, 2]), None), images[[4, 2]])


def test_they_are_the_same_on_every_machine() -> None:
    """Up to rounding, which another processor's arithmetic and another Pillow may do otherwise."""
    corners = drawn(4)[:, :: SIZE - 1, :: SIZE - 1].reshape(4, -1).astype(int)
    assert np.abs(corners - CORNERS).max() <= 2, corners.tolist()


def test_another_epoch_has_other_images() -> None:
    assert not (drawn(3) == drawn(3, epoch=1)).all(axis=(1, 2, 3)).any()


def test_frequencies_are_as_strong_as_in_photographs() -> None:
    """Their amplitude falls about as 1 / f (Field 1987): a straight line of slope -1 in logarithms, in the mean."""
    grey = drawn(40).mean(axis=3) - 127
    window = np.hanning(SIZE)[:, None] * np.hanning(SIZE)
    amplitude = np.abs(np.fft.fft2(grey * window)).mean(axis=0)
    frequency = np.rint(SIZE * np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE), np.fft.fftfreq(SIZE)))).astype(int)
    rings = np.arange(3, SIZE // 3)
    slope = np.polyfit(np.log(rings), np.log([amplitude[frequency == ring].mean() for ring in rings]), 1)[0]
    assert -1.4 < slope < -0.7


def test_they_are_as_light_and_as_contrasty_as_photographs() -> None:
    """Means and deviations of ImageNet's channels are 104 to 124 and 57 to 58, of 255."""
    images = drawn(60).astype(np.float64)
    assert 95 < images.mean() < 150
    assert 40 < images.std(axis=(0, 1, 2)).mean() < 80
