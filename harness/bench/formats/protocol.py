"""What a package format is: what a cell's network is converted to, and all that depends on it.

Cells, runs, records and tables know this protocol alone. A new format is a module or folder beside this one, with a
call of `register`; what it does is to convert, verify, read back and have its packages predict.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coreml_prune_bench.core.errors import SuiteError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from coreml_prune_bench.accuracy.runtime import Evaluation
    from coreml_prune_bench.mlprogram.summary import PackageSummary
    from coreml_prune_bench.models.pruning.task import Pruned
    from coreml_prune_bench.runtimes.protocol import Load


class PackageFormat(Protocol):
    """What saves, checks, reads and runs packages of one format.

    name: the identifier in suites. suffix: that its packages end in. packages: the installed ones that it depends on.
    """

    name: str
    suffix: str
    packages: tuple[str, ...]

    def save_dense(self, model: "nn.Module", image_size: int, path: Path) -> None:
        """Convert a network in eval mode, which takes normalized float32 [N, 3, H, W], and save it to `path`."""

    def save_pruned(self, pruned: "Pruned", path: Path) -> None:
        """The same of a pruned network, its zeros stored as such."""

    def read(self, path: Path) -> "PackageSummary":
        """What a saved package holds. Raises PackageError for one that cannot be read."""

    def check(self, path: Path, pruned: "Pruned | None", dense: "PackageSummary | None") -> None:
        """Raises CellFailedError where the package at `path` is not what was asked; None, None: a dense one."""

    def load(self, evaluation: "Evaluation") -> "Load":
        """What loads its packages so that they predict. Raises BenchError where that runtime does not run them."""


_FORMATS: dict[str, PackageFormat] = {}


def register(package_format: PackageFormat) -> None:
    """Make a format known under its name. Raises ValueError if the name is taken."""
    if package_format.name in _FORMATS:
        raise ValueError(f"a package format named {package_format.name!r} is registered already")
    _FORMATS[package_format.name] = package_format


def get_format(name: str) -> PackageFormat:
    """The format called `name`. Raises SuiteError of one line."""
    if name not in _FORMATS:
        raise SuiteError(
            f"no package format {name!r}, expected one of {', '.join(sorted(_FORMATS))}{did_you_mean(name, _FORMATS)}"
        )
    return _FORMATS[name]
