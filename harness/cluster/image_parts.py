"""The images of an evaluation in parts, each of which is a task, and predictions of all of them together again."""

from collections.abc import Sequence

from coreml_prune_bench.data.image_cache import BLOCK_IMAGES
from coreml_prune_bench.records.predictions import Predictions

_PARTS_A_WORKER = 4
"""So that a slow worker, or one that joins later, is no worse than the fourth part of its share."""
_LEAST_PART, LARGEST_PART = 4 * BLOCK_IMAGES, 64 * BLOCK_IMAGES
"""Images: fewer take no longer than loading a package, of more too many are lost with a worker."""


def parts(images: int, workers: int) -> list[range]:
    """Positions of all images, in parts of whole blocks: some for each worker, neither tiny nor huge."""
    size = -(-images // (workers * _PARTS_A_WORKER * BLOCK_IMAGES)) * BLOCK_IMAGES
    return parts_of_size(images, min(max(size, _LEAST_PART), LARGEST_PART))


def parts_of_size(images: int, size: int) -> list[range]:
    """Positions of all images, so many in each part; in the last one what is left."""
    return [range(start, min(start + size, images)) for start in range(0, images, size)]


def joined(found: Sequence[Predictions]) -> Predictions:
    """Of one package, its parts in the order of the images."""
    return Predictions(
        labels=tuple(label for one in found for label in one.labels),
        top5=tuple(top for one in found for top in one.top5),
    )


def in_words(part: range) -> str:
    return f"images {part.start + 1:,} to {part.stop:,}"
