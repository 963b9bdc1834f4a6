"""Core ML's `.mlpackage`. Imports torch and coremltools only when a package is made."""

from pathlib import Path
from typing import TYPE_CHECKING

from coreml_prune_bench.bench.formats.protocol import register

if TYPE_CHECKING:
    import coremltools as ct
    from torch import nn

    from coreml_prune_bench.accuracy.runtime import Evaluation
    from coreml_prune_bench.mlprogram.summary import PackageSummary
    from coreml_prune_bench.models.pruning.task import Pruned
    from coreml_prune_bench.runtimes.protocol import Load


class _MLPackage:
    name = "mlpackage"
    suffix = ".mlpackage"
    packages: tuple[str, ...] = ("coremltools",)

    def save_dense(self, model: "nn.Module", image_size: int, path: Path) -> None:
        from coreml_prune_bench.models.conversion import to_coreml

        _save(to_coreml(model, image_size), path)

    def save_pruned(self, pruned: "Pruned", path: Path) -> None:
        from coreml_prune_bench.models.pruning.coreml import to_sparse_coreml

        _save(to_sparse_coreml(pruned), path)

    def read(self, path: Path) -> "PackageSummary":
        from coreml_prune_bench.mlprogram.summary import read_package

        return read_package(path)

    def check(self, path: Path, pruned: "Pruned | None", dense: "PackageSummary | None") -> None:
        from coreml_prune_bench.bench.verify import check_package

        if pruned is None:
            check_package(path, self.read(path), {}, None)
            return
        check_package(
            path,
            self.read(path),
            pruned.targets,
            dense,
            patterns=pruned.patterns,
            storage=pruned.config.storage,
            bits=pruned.config.joint_bits or 16,
        )

    def load(self, evaluation: "Evaluation") -> "Load":
        return evaluation.load


def _save(program: "ct.models.MLModel", path: Path) -> None:
    from coreml_prune_bench.mlprogram.reproducible import make_reproducible

    program.save(str(path))
    make_reproducible(path)


MLPACKAGE = _MLPackage()
register(MLPACKAGE)
