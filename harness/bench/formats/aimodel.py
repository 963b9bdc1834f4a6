"""Core AI's `.aimodel`. Imports torch, coremltools and Apple's packages for Core AI only when a package is made.

The network is the one that Core ML gets. Where an algorithm prunes the converted Core ML program, its zeros are taken
over from there. Weights are stored in Float16, sparse or dense, and in no other form.
"""

from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from coreml_prune_bench.bench.formats.mlpackage import MLPACKAGE
from coreml_prune_bench.bench.formats.protocol import register
from coreml_prune_bench.core.errors import CellFailedError

if TYPE_CHECKING:
    from torch import nn

    from coreml_prune_bench.accuracy.runtime import Evaluation
    from coreml_prune_bench.mlprogram.summary import PackageSummary
    from coreml_prune_bench.models.pruning.task import Pruned
    from coreml_prune_bench.runtimes.protocol import Load


class _AIModel:
    name = "aimodel"
    suffix = ".aimodel"
    packages: tuple[str, ...] = ("coreai-core", "coreai-torch", "coremltools")

    def save_dense(self, model: "nn.Module", image_size: int, path: Path) -> None:
        _save(model, image_size, path)

    def save_pruned(self, pruned: "Pruned", path: Path) -> None:
        if pruned.config.joint_bits is not None:
            raise CellFailedError(
                f"{pruned.config.joint_bits} bits a value are stored in .mlpackage alone: leave the config out where "
                "packages are .aimodel"
            )
        model = _with_zeros_of_program(pruned) if pruned.prune_program else pruned.model
        _save(model, pruned.image_size, path, sparse=pruned.targets)

    def read(self, path: Path) -> "PackageSummary":
        from coreml_prune_bench.aimodel.programs import read_package

        return read_package(path)

    def check(self, path: Path, pruned: "Pruned | None", dense: "PackageSummary | None") -> None:
        from coreml_prune_bench.bench.verify import check_package

        if pruned is None:
            check_package(path, self.read(path), {}, None)
        else:
            check_package(path, self.read(path), pruned.targets, dense, patterns=pruned.patterns)

    def load(self, evaluation: "Evaluation") -> "Load":
        return evaluation.load


def _save(model: "nn.Module", image_size: int, path: Path, sparse: Collection[str] = ()) -> None:
    from coreml_prune_bench.aimodel.naming import add_names
    from coreml_prune_bench.aimodel.process import require_coreai
    from coreml_prune_bench.models.conversion import INPUT_NAME
    from coreml_prune_bench.models.coreai import save_coreai

    require_coreai()
    add_names(path, INPUT_NAME, save_coreai(model, image_size, path, sparse=sparse))


def _with_zeros_of_program(pruned: "Pruned") -> "nn.Module":
    """A copy of the network with the zeros that its algorithm leaves in the converted Core ML program."""
    import torch

    from coreml_prune_bench.aimodel.programs import read_program
    from coreml_prune_bench.mlprogram.summary import kept_in, summarize

    model = deepcopy(pruned.model)
    with TemporaryDirectory() as folder:
        package = Path(folder) / f"pruned{MLPACKAGE.suffix}"
        MLPACKAGE.save_pruned(pruned, package)
        program = read_program(package)
        summary = summarize(program)
        names = {layer: summary.weight_of_layer(layer).name for layer in pruned.targets}
        kept = kept_in(program, list(names.values()))
    with torch.no_grad():
        for layer, name in names.items():
            model.get_submodule(layer).get_parameter("weight").mul_(torch.from_numpy(kept[name]))
    return model


AIMODEL = _AIModel()
register(AIMODEL)
