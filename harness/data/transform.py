"""The evaluation's view of an image.

It stands alone because prepared images that are kept are known by this file's code: whatever changes a pixel belongs
here, and nothing else does.
"""

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from coreml_prune_bench.data.scaling import scaled_part
from coreml_prune_bench.models.preprocessing import USUAL, Preprocessing

BILINEAR = PIL.Image.Resampling.BILINEAR
ORIENTATION = PIL.ExifTags.Base.Orientation

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
"""TIFF's tags; 0 of the second one says that white is 0."""


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image in RGB, decoded: what `convert("RGB")` makes of it, as torchvision's loader does, but for deep greys.

    EXIF orientation is not applied: torchvision does not apply it either; see `upright`. Raises ValueError as
    `shallow`.
    """
    image.load()
    return image if image.mode == "RGB" else shallow(image).convert("RGB")


def shallow(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image with 8 bits a channel: of 16-bit grey the high byte, which is what Pillow keeps of 16-bit colour.

    Pillow itself, and with it torchvision, clips such an image: every grey from 255 on, of 65,535, would be white.
    ValueError for other numbers as pixels (32 bits, floats, 12 bits), of which nothing says which one is white.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
        return image
    # Pillow scales every PGM of more than 8 bits to 16, and calls that "I".
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    tags = getattr(image, "tag_v2", {})  # where Pillow takes 12 bits for 16, and black for white
    if not sixteen or tags.get(_BITS_PER_SAMPLE, (16,)) != (16,) or tags.get(_PHOTOMETRIC, 1) != 1:
        raise ValueError(
            f"its pixels are {'floats' if image.mode == 'F' else 'deep integers'} (mode {image.mode}), of which "
            "nothing sure says which one is white; expected 8 bits a channel, or 16 with white at 65,535"
        )
    return PIL.Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image turned as its EXIF orientation says, decoded if it is: as `datasets.Image.decode_example` does it."""
    if image.getexif().get(ORIENTATION) is None:
        return image
    image.load()  # which turns a TIFF, and forgets its orientation
    return PIL.ImageOps.exif_transpose(image)


def preprocess(image: PIL.Image.Image, image_size: int, asked: Preprocessing = USUAL) -> NDArray[np.uint8]:
    """Evaluation's view of an image, uint8 [image_size, image_size, 3]. asked: of it, the view counts.

    Bit-exact to torchvision's Resize(256) and CenterCrop(224) on a PIL image, the recipe behind published ImageNet
    accuracies; at any other size Resize and CenterCrop to that size, which loses no border of a small image.
    """
    rgb = to_rgb(image)
    whole = (0, 0, image_size, image_size)
    if asked.crop == "scaleFill":
        return np.array(scaled_part(rgb, (image_size, image_size), whole, asked.interpolation))
    width, height = _size_with_shorter_side(rgb, asked.shorter_side(image_size))
    left, top = round((width - image_size) / 2), round((height - image_size) / 2)
    box = (left, top, left + image_size, top + image_size)
    return np.array(scaled_part(rgb, (width, height), box, asked.interpolation))


def _size_with_shorter_side(image: PIL.Image.Image, size: int) -> tuple[int, int]:
    short, long = sorted(image.size)
    scaled = int(size * long / short)  # torchvision truncates
    return (size, scaled) if image.width <= image.height else (scaled, size)
