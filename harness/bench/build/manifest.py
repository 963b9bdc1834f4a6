"""What the store keeps beside a trained network and a package: typed, so that reader and writer agree."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict

from coreml_prune_bench.records.schemas import Frozen


class _Manifest(Frozen):
    model_config = ConfigDict(extra="forbid")


class NetworkManifest(_Manifest):
    """Of a network trained here. skipped: ids of bad training images left out. devices: what trained it, in words."""

    skipped: tuple[str, ...]
    devices: tuple[str, ...]


class PackageManifest(_Manifest):
    """Of a package. targets: the sparsity asked of each pruned layer, None for a threshold. scope: those in words.

    trained: whether its network was trained here. train_skipped, devices: as a network's, its pruning among them.
    threads: of torch on the CPU, where it was pruned and converted; None where somebody else did.
    """

    targets: dict[str, float | None]
    scope: str
    trained: bool
    train_skipped: tuple[str, ...]
    devices: tuple[str, ...]
    threads: int | None


@dataclass(frozen=True)
class Built:
    """A saved package, and what was kept of how it was made."""

    path: Path
    made: PackageManifest
