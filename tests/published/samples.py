"""What the server of files serves, and where it arrives."""

import io
import zipfile
from pathlib import Path

import numpy as np

from coreml_prune_bench.published.packages import published_folder

CONTENT = np.random.default_rng(0).bytes(3_000_000)


def zip_of(*entries: tuple[str, bytes], mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def weight_file(name: str) -> Path:
    return published_folder() / f"{name}.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
