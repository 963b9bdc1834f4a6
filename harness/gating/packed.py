"""What was right, a bit an image, as text."""

import base64

import numpy as np

from coreml_prune_bench.records.hits import Bits


def packed(correct: Bits) -> str:
    """Base64 of bool [images]; the first image is the highest bit of the first byte."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpacked(text: str, images: int) -> Bits:
    """bool [images]. Raises ValueError for what is no base64, or too short."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=images).astype(bool)
