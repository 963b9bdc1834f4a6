"""Preprocessing, bit for bit torchvision's, and augmentation."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import augment, open_data, preprocess
from coreml_prune_bench.data.transform import upright
from coreml_prune_bench.models.preprocessing import Interpolation, Preprocessing
from tests.data.samples import noise, pixels, save


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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(256, 511), (300, 257), (60, 50)])
def test_every_view_is_what_torchvision_makes(size: tuple[int, int], interpolation: Interpolation) -> None:
    from torchvision import transforms

    image = noise(*size)
    mode = transforms.InterpolationMode(interpolation)
    for asked, expected in (
        (Preprocessing(resize=120, interpolation=interpolation), [transforms.Resize(120, mode)]),
        (Preprocessing(crop="centerCrop", interpolation=interpolation), [transforms.Resize(97, mode)]),
        (Preprocessing(crop="scaleFill", interpolation=interpolation), [transforms.Resize((97, 97), mode)]),
    ):
        seen = transforms.Compose([*expected, transforms.CenterCrop(97)])(image)
        assert np.array_equal(preprocess(image, 97, asked), np.array(seen)), asked


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "jpg"), ("CMYK", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "png"), ("1", "png")]
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = save(tmp_path / f"val/cat/a.{suffix}", noise(60, 50).convert(mode))
    image = open_data(f"imagefolder:{tmp_path}").val.image(0)
    assert image.mode == "RGB"
    assert np.array_equal(np.array(image), np.array(Image.open(path).convert("RGB")))


GREY = 156
"""Of 255; 40,000 of 65,535 has it as its high byte."""


def deep(dtype: str, value: float = 40_000) -> Image.Image:
    return Image.fromarray(np.full((64, 64), value, dtype))


@pytest.mark.parametrize(
    ("name", "image"), [("a.png", deep("uint16")), ("a.tif", deep("uint16")), ("a.pgm", deep("int32"))]
)
def test_sixteen_bits_are_cut_to_the_upper_eight_and_not_clipped_to_white(
    tmp_path: Path, name: str, image: Image.Image
) -> None:
    save(tmp_path / "val/cat" / name, image)
    found = open_data(f"imagefolder:{tmp_path}").val.image(0)
    assert (found.mode, set(np.array(found).ravel().tolist())) == ("RGB", {GREY})
    assert set(np.array(upright(Image.open(tmp_path / "val/cat" / name)).convert("RGB")).ravel().tolist()) == {255}


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (deep("int32"), {}),
        (deep("float32", 0.61), {}),
        (deep("uint16"), {"tiffinfo": {262: 0}}),  # white is 0, which Pillow does not look at here
    ],
)
def test_pixels_of_which_nothing_says_what_is_white_are_refused(
    tmp_path: Path, image: Image.Image, options: dict[str, Any]
) -> None:
    (tmp_path / "val/cat").mkdir(parents=True)
    image.save(tmp_path / "val/cat/a.tif", **options)
    split = open_data(f"imagefolder:{tmp_path}").val
    with pytest.raises(DataError, match=r"val/cat/a.tif: its pixels are (deep integers|floats) .*--skip-bad-images"):
        split.image(0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_other_mode_of_a_tiff_is_read_as_torchvision_reads_it(tmp_path: Path, mode: str) -> None:
    from torchvision.datasets.folder import pil_loader  # type: ignore[import-untyped]

    image = noise(60, 50)
    stored = Image.frombytes(mode, (60, 50), image.tobytes()) if mode == "LAB" else image.convert(mode)
    path = save(tmp_path / "val/cat/a.tif", stored)
    assert np.array_equal(pixels(open_data(f"imagefolder:{tmp_path}").val, 0), np.array(pil_loader(path)))


@pytest.mark.parametrize("kind", ["transparent palette", "transparent grey", "grey with alpha", "sixteen-bit colour"])
def test_what_png_can_be_besides_is_read_as_torchvision_reads_it(tmp_path: Path, kind: str) -> None:
    from torchvision.datasets.folder import pil_loader

    (tmp_path / "val/cat").mkdir(parents=True)
    path, image = tmp_path / "val/cat/a.png", noise(60, 50)
    match kind:
        case "transparent palette":
            image.quantize(8).save(path, transparency=bytes(range(8)))
        case "transparent grey":
            image.convert("L").save(path, transparency=7)
        case "grey with alpha":
            image.convert("LA").save(path)
        case _:
            path.write_bytes(sixteen_bit_colour(60, 50))
    assert np.array_equal(pixels(open_data(f"imagefolder:{tmp_path}").val, 0), np.array(pil_loader(path)))


def sixteen_bit_colour(width: int, height: int) -> bytes:
    """A PNG that Pillow cannot write, of 40,000 in every channel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + struct.pack(">H", 40_000) * 3 * width) * height
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def turned(orientation: int) -> bytes:
    """A JPEG, red above blue as it is stored, with an EXIF orientation."""
    image = Image.new("RGB", (64, 48), (255, 0, 0))
    image.paste((0, 0, 255), (0, 24, 64, 48))
    image.getexif()[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=image.getexif())
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_hubs_images_are_upright_as_datasets_returns_them_and_a_folders_as_torchvision_does(
    tmp_path: Path, orientation: int
) -> None:
    import datasets  # type: ignore[import-untyped]
    from torchvision.datasets.folder import pil_loader

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat"])})
    row = {"image": [{"bytes": turned(orientation), "path": None}], "label": [0]}
    table = datasets.Dataset.from_dict(row, features=features)
    table.save_to_disk(tmp_path / "saved")
    found = pixels(open_data(f"hf:{tmp_path / 'saved'}").val, 0)
    assert np.array_equal(found, np.array(table[0]["image"]))
    assert (found[0, 0, 0] > 200) == (orientation in (1, 2, 5, 8))  # red is where the upper left was
    file = tmp_path / "folder/val/cat/a.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(turned(orientation))
    stored = pixels(open_data(f"imagefolder:{tmp_path / 'folder'}").val, 0)
    assert np.array_equal(stored, np.array(pil_loader(file)))
    assert stored[0, 0, 0] > 200


def test_a_columns_own_mode_is_applied_as_datasets_does(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(mode="L"), "label": datasets.ClassLabel(names=["cat"])})
    row = {"image": [{"bytes": turned(1), "path": None}], "label": [0]}
    table = datasets.Dataset.from_dict(row, features=features)
    table.save_to_disk(tmp_path / "saved")
    found = pixels(open_data(f"hf:{tmp_path / 'saved'}").val, 0)
    assert np.array_equal(found, np.array(table[0]["image"].convert("RGB")))
    assert 70 < found[0, 0, 0] == found[0, 0, 2] < 80  # the luma of red


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
