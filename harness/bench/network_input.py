"""What a network of a suite takes: images of which size, prepared how, and pixels as which numbers.

The suite's `[preprocessing]` says it, or what torchvision and timm say of their weights; else what is usual.
"""

from collections.abc import Callable
from dataclasses import replace

from coreml_prune_bench.data import DataSet
from coreml_prune_bench.models.imagenet import IMAGENET_SIZE
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.preprocessing import Preprocessing


def as_taken(
    network: Network,
    data: DataSet,
    *,
    pretrained: bool,
    asked: Preprocessing | None = None,
    image_size: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Network, DataSet]:
    """The network and its data, prepared for each other. asked, image_size: the suite's, if it says so.

    What is known of a network's weights counts where nothing else is asked, at the size that they were evaluated at,
    which is taken where the images are as large. `say` is told of what is not as usual.
    """
    recipe = network.own.recipe() if network.own and pretrained else None
    if image_size is None and recipe and data.image_size == IMAGENET_SIZE:
        image_size = recipe.image_size
    size = image_size or data.image_size
    opened = (lambda: data.train) if data.open_train else None  # once, for all networks
    source = "[preprocessing]"
    if asked is None and recipe and recipe.image_size == size:
        asked, source = recipe.preprocessing.view, f"as {network.title} was evaluated"
    if asked is None or not asked.changes():
        return network, data if size == data.image_size else replace(data, image_size=size, open_train=opened)
    numbers = f"; numbers: {asked.in_words()}" if asked.normalizes else ""
    say(f"{network.title}: images {asked.of_view(size)}{numbers} ({source})")
    taken = network.taking(asked) if asked.normalizes else network
    return taken, replace(data, image_size=size, preprocessing=asked, open_train=opened)
