"""What was right, a bit an image, as text."""

import base64
import functools

import numpy as np

from coreml_prune_bench.records.hits import Bits


def packed(correct: Bits) -> str:
    """Base64 of bool [images]; the first image is the highest bit of the first byte."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


@functools.lru_cache(maxsize=256)  # a gate asks for each row several times
def unpacked(text: str, images: int) -> Bits:
    """bool [images], not to be written to. Raises ValueError for what is no base64, or too short."""
    correct = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=images).astype(bool)
    correct.flags.writeable = False
    return correct
