"""The evaluation's view of an image.

It stands alone because prepared images that are kept are known by this file's code: whatever changes a pixel belongs
here, and nothing else does.
"""

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from coreml_prune_bench.data.scaling import scaled_part

BILINEAR = PIL.Image.Resampling.BILINEAR


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image in RGB, decoded. EXIF orientation is not applied: torchvision's reference does not apply it either."""
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def preprocess(image: PIL.Image.Image, image_size: int) -> NDArray[np.uint8]:
    """Evaluation's view of an image, uint8 [image_size, image_size, 3].

    Bit-exact to torchvision's Resize(256) and CenterCrop(224) on a PIL image, the recipe behind published ImageNet
    accuracies; at any other size Resize and CenterCrop to that size, which loses no border of a small image.
    """
    rgb = to_rgb(image)
    width, height = _size_with_shorter_side(rgb, 256 if image_size == 224 else image_size)
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    return np.array(scaled_part(rgb, (width, height), (left, top, left + image_size, top + image_size)))


def _size_with_shorter_side(image: PIL.Image.Image, size: int) -> tuple[int, int]:
    short, long = sorted(image.size)
    scaled = int(size * long / short)  # torchvision truncates
    return (size, scaled) if image.width <= image.height else (scaled, size)
