"""Where pre-trained weights come from, told apart without reading them: this module does not import torch."""

import hashlib
from difflib import get_close_matches
from pathlib import Path

from coreml_prune_bench.models.errors import WeightsError
from coreml_prune_bench.models.network import Network
from coreml_prune_bench.models.pointers import pointer_problem

_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors")


def weights_file(network: Network, folder: Path) -> Path:
    """`folder/<name>.pth`. Raises WeightsError if there is no such file."""
    path = folder / f"{network.name}.pth"
    if not path.is_file():
        raise WeightsError(f"no weights for {network.name}: {path} does not exist{_beside(network, folder)}")
    if problem := pointer_problem(path):
        raise WeightsError(f"{path} {problem}")
    return path


def _beside(network: Network, folder: Path) -> str:
    """A file that may be meant, as the end of a message: of the network's name with another ending, or nearly so."""
    try:
        files = sorted(file.name for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    except OSError:
        return ""
    same = [name for name in files if name.split(".")[0] == network.name]
    if same:
        kind = "; convert it: torch.save(safetensors.torch.load_file(OLD), NEW)"
        return f"; there is {same[0]}" + (kind if same[0].endswith(".safetensors") else ": rename it")
    near = get_close_matches(f"{network.name}.pth", files, n=1)
    return f"; there is {near[0]}: rename it if it is meant" if near else ""


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
