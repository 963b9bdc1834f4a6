"""Images that nobody took, to calibrate with where there are none: leaves that lie on each other, on a cloudy ground.

As in photographs, things hide things behind sharp edges, sizes follow a power law, and high frequencies are faint:
"dead leaves" (Lee, Mumford and Huang 2001). Networks that learn from nothing but such images come a good way towards
those that learn from photographs (Baradad et al. 2021, "Learning to See by Looking at Noise").
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_SMALLEST, _LARGEST = 0.027, 0.5
"""Radii of leaves, of the image's width. The density falls with the third power of the radius."""
_FEWEST_LEAVES, _MOST_LEAVES = 20, 200
_CLOUDS = 4
"""With which the leaves of an image are filled."""


class SyntheticImages:
    """Each number's image is always the same; `models.loading.Images`."""

    def __init__(self, image_size: int) -> None:
        self._size = image_size
        self._drawn: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """More than anybody asks for."""
        return 1 << 16

    def images(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        """uint8 [n, H, W, 3]; others of the same kind in another epoch. Those of none are drawn once, and kept."""
        if epoch is not None:
            return np.stack([self._leaves(np.random.default_rng((int(index), epoch))) for index in indices])
        for index in map(int, indices):
            if index not in self._drawn:
                self._drawn[index] = self._leaves(np.random.default_rng((index, 0)))
        return np.stack([self._drawn[int(index)] for index in indices])

    def _leaves(self, draw: np.random.Generator) -> np.ndarray:
        canvas = self._cloud(draw)
        clouds = [self._cloud(draw) for _ in range(_CLOUDS)]
        for _ in range(draw.integers(_FEWEST_LEAVES, _MOST_LEAVES)):
            leaf = self._leaf(draw)
            colour = tuple(int(channel) for channel in draw.integers(0, 256, 3))
            fill = Image.new("RGB", canvas.size, colour)
            if draw.random() < 0.7:
                fill = Image.blend(clouds[draw.integers(_CLOUDS)], fill, draw.uniform(0.2, 0.9))
            canvas.paste(fill, (0, 0), leaf)
        if draw.random() < 0.5:
            canvas = canvas.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 1.2)))
        return np.asarray(canvas)

    def _leaf(self, draw: np.random.Generator) -> Image.Image:
        """Where it lies: an ellipse, or a polygon of three to eight corners, some with soft edges."""
        mask = Image.new("L", (self._size, self._size))
        few, many = _SMALLEST**-2, _LARGEST**-2
        radius = self._size * (few - (few - many) * draw.random()) ** -0.5
        x, y = draw.uniform(0, self._size, 2)
        if draw.random() < 0.25:
            height = radius * draw.uniform(0.3, 1)
            ImageDraw.Draw(mask).ellipse([x - radius, y - height, x + radius, y + height], fill=255)
        else:
            corners = int(draw.integers(3, 9))
            angles = np.sort(draw.uniform(0, 2 * np.pi, corners))
            reach = radius * draw.uniform(0.5, 1.2, corners)
            places = zip(x + reach * np.cos(angles), y + reach * np.sin(angles), strict=True)
            ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in places], fill=255)
        if draw.random() < 0.3:
            mask = mask.filter(ImageFilter.GaussianBlur(draw.uniform(0.5, 3)))
        return mask

    def _cloud(self, draw: np.random.Generator) -> Image.Image:
        """Noise whose amplitude falls with a power of the frequency, in colours near to grey."""
        size = self._size
        frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
        frequency[0, 0] = np.inf  # no constant part
        amplitude = frequency ** -draw.uniform(0.5, 2)
        parts = draw.normal(size=(2, 3, *amplitude.shape))
        noise = np.fft.irfft2(amplitude * (parts[0] + 1j * parts[1]), s=(size, size))  # [3, H, W]
        noise /= noise.std(axis=(1, 2), keepdims=True)
        grey = 0.9 / 3**0.5
        mixed = np.einsum("chw,cd->hwd", noise, grey + 0.25 * draw.normal(size=(3, 3)))
        pixels = 127 + draw.uniform(-40, 40) + draw.uniform(30, 70) * mixed / mixed.std()
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
