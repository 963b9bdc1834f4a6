"""Where pre-trained weights come from, told apart without reading them: this module does not import torch."""

import hashlib
from pathlib import Path

from coreml_prune_bench.models.errors import WeightsError
from coreml_prune_bench.models.network import Network


def weights_file(network: Network, folder: Path) -> Path:
    """`folder/<name>.pth`. Raises WeightsError if there is no such file."""
    path = folder / f"{network.name}.pth"
    if not path.is_file():
        raise WeightsError(f"no weights for {network.name}: {path} does not exist")
    return path


def weights_fingerprint(network: Network, folder: Path | None) -> str:
    """What identifies the weights: the SHA-256 of the file, or the name of those that are downloaded or its own.

    Imports torch for those that a function of the user has loaded, and for no others.
    """
    if folder is not None:
        with weights_file(network, folder).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if network.own is not None:
        return network.own.weights_name()
    if network.pretrained is None:
        raise WeightsError(f"{network.name} has no pre-trained weights to download; give a folder with --weights")
    return network.pretrained
