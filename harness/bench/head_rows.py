"""Which rows of a pre-trained head are the classes of a data set."""

from collections.abc import Sequence

from coreml_prune_bench.data.imagenet import places_of
from coreml_prune_bench.models.imagenet import IMAGENET_CLASSES


def head_rows(classes: Sequence[str], known: int) -> tuple[int, ...] | None:
    """By class of the data, its number among the `known` ones of a head; None where the head does not know them.

    As many classes are taken to be the same ones. Fewer are where the head is of ImageNet-1k's and they are WordNet ids
    among those, as of Tiny ImageNet or ImageNet-100.
    """
    if len(classes) == known:
        return tuple(range(known))
    return places_of(classes) if known == IMAGENET_CLASSES else None
