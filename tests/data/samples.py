"""Pictures and data sets made up for the tests, and what they are asked."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from coreml_prune_bench.core.errors import DataError
from coreml_prune_bench.data import (
    DataSet,
    Split,
    open_data,
)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def save(path: Path, image: Image.Image | None = None) -> Path:
    """Without an image: noise of its own for each split, class and name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or noise(40, 30, zlib.crc32("/".join(path.parts[-3:]).encode()))).save(path)
    return path


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def opening_fails(spec: str, *words: str) -> None:
    """The message is one line and holds every one of `words`."""
    with pytest.raises(DataError) as caught:
        open_data(spec)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


def train_of(data: DataSet) -> Split:
    assert data.train is not None
    return data.train


def table(labels: list[int], names: list[str] | None = None, label: str = "label", size: int = 20):  # type: ignore[no-untyped-def]
    """A `datasets.Dataset` with a PNG a label; a ClassLabel where `names` are given, plain integers otherwise."""
    import datasets  # type: ignore[import-untyped]

    feature = datasets.ClassLabel(names=names) if names else datasets.Value("int32")
    pictures = [{"bytes": encoded(noise(size, size, index)), "path": None} for index in range(len(labels))]
    features = datasets.Features({"id": datasets.Value("int64"), "picture": datasets.Image(), label: feature})
    columns = {"id": list(range(len(labels))), "picture": pictures, label: labels}
    return datasets.Dataset.from_dict(columns, features=features)


def pixels(split: Split, index: int) -> NDArray[np.uint8]:
    return np.array(split.image(index))
