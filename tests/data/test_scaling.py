"""Images that are looked at in part are what Pillow makes whole, to the last bit, whatever their shape."""

import itertools
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from coreml_prune_bench.data import scaling
from coreml_prune_bench.data.scaling import scaled_part
from coreml_prune_bench.data.transform import preprocess
from coreml_prune_bench.models.preprocessing import Interpolation


def drawn(draw: np.random.Generator, mode: str, width: int, height: int) -> PIL.Image.Image:
    if mode == "F":
        return PIL.Image.fromarray(draw.normal(0, 100, (height, width)).astype(np.float32))
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return PIL.Image.fromarray(draw.integers(0, 256, shape, np.uint8))


@pytest.mark.parametrize(
    ("mode", "interpolation"), [("RGB", "bilinear"), ("L", "bilinear"), ("F", "bilinear"), ("RGB", "bicubic"),
                                ("F", "bicubic"), ("RGB", "lanczos"), ("L", "lanczos")]
)  # fmt: skip
def test_a_part_is_a_part_of_the_whole(
    mode: str, interpolation: Interpolation, draw: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Along one axis, along both, larger, smaller and as it is; Pillow's own way is off."""
    monkeypatch.setattr(scaling, "_MOST_PIXELS", 0)
    sizes = [1, 2, 9, 40, 131] if interpolation == "bilinear" else [1, 9, 40, 131]
    chosen = PIL.Image.Resampling[interpolation.upper()]
    for width, height, new_width, new_height in itertools.product(sizes, repeat=4):
        image = drawn(draw, mode, width, height)
        (left, right), (top, bottom) = (sorted(draw.integers(0, n, 2)) for n in (new_width, new_height))
        box = (int(left), int(top), int(right) + 1, int(bottom) + 1)
        whole = image.resize((new_width, new_height), chosen).crop(box)
        part = scaled_part(image, (new_width, new_height), box, interpolation)
        np.testing.assert_array_equal(np.asarray(part), np.asarray(whole), str((image.size, whole.size, box)))


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_a_thin_image_is_scaled_where_it_is_looked_at(size: tuple[int, int], draw: np.random.Generator) -> None:
    """What torchvision's transform is by definition: the rows of the centre, between two pixels 256 of each pair."""
    column = draw.integers(0, 256, (60_000, 1, 3), np.uint8)
    image = PIL.Image.fromarray(column if size[0] == 1 else column.swapaxes(0, 1))
    seen = preprocess(image, 224)
    seen = seen if size[0] == 1 else seen.swapaxes(0, 1)
    assert seen.shape == (224, 224, 3)
    np.testing.assert_array_equal(seen, np.repeat(seen[:, :1], 224, axis=1))
    # 15,360,000 rows, of which the centre's are 7,679,888 and the 223 after it; pixel p's centre is at 256 p + 127.5.
    place = (np.arange(7_679_888, 7_679_888 + 224) + 0.5) / 256 - 0.5
    first = np.floor(place).astype(int)
    share = (place - first)[:, None]
    expected = column[first, 0] * (1 - share) + column[first + 1, 0] * share
    assert np.abs(seen[:, 0] - expected).max() <= 0.5 + 1e-4


def test_ordinary_images_are_left_to_pillow(draw: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_axis", None)
    for width, height in [(500, 375), (375, 500), (32, 32), (3000, 200), (200, 3000), (224, 224)]:
        preprocess(drawn(draw, "RGB", width, height), 224)


def test_a_thin_file_is_evaluated(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (1, 60_000), (9, 8, 7)).save(tmp_path / "thin.png")
    assert (tmp_path / "thin.png").stat().st_size < 1000
    assert (preprocess(PIL.Image.open(tmp_path / "thin.png"), 224) == (9, 8, 7)).all()
