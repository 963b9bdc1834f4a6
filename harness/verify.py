"""Is a saved package what its cell says it is? A dense model must never be reported as pruned."""

from collections.abc import Mapping
from pathlib import Path

from harness.package import PackageSummary, WeightSummary
from harness.runtimes.portable.reader import read

_TOLERANCE = 0.005
_NOT_FLOAT16 = {"fp32", "fp64"}


class CellFailedError(Exception):
    """A package that is not what was asked for. The cell is recorded as failed with this reason; the others go on."""


def check_package(
    path: Path, package: PackageSummary, targets: Mapping[str, float | None], dense: PackageSummary | None
) -> None:
    """Check what was read back from `path`. Raises CellFailedError with the first thing that is wrong.

    targets: the sparsity asked of each pruned layer, None where a threshold leaves it open; empty for the baseline.
    dense: the baseline, whose operations a pruned package has to share.
    """
    _check_float16(path, package)
    if dense is not None:
        _check_sparse(package, targets)
        _check_same_program(package, dense)


def _check_float16(path: Path, package: PackageSummary) -> None:
    for weight in package.weights:
        if weight.dtype != "float16":
            raise CellFailedError(f"weight {weight.name} is {weight.dtype}, not float16")
    for operation in read(path).operations:
        for output in operation.outputs:
            if operation.type != "const" and output.type.dtype in _NOT_FLOAT16:
                raise CellFailedError(f"operation {output.name} ({operation.type}) computes in {output.type.dtype}")


def _check_sparse(package: PackageSummary, targets: Mapping[str, float | None]) -> None:
    if not targets:
        raise CellFailedError("the config prunes no layer of this network")
    weights = {layer: package.weight_of_layer(layer) for layer in targets}
    if not any(weight.storage == "sparse" for weight in weights.values()):
        raise CellFailedError("no weight in scope is stored sparse")
    for layer, target in targets.items():
        if target is not None:
            _check_target(layer, weights[layer], target)


def _check_target(layer: str, weight: WeightSummary, target: float) -> None:
    if weight.storage != "sparse" or weight.sparsity is None:
        raise CellFailedError(f"layer {layer} is stored {weight.storage}, not sparse")
    # In a small layer a single weight can be more than half a point.
    if abs(weight.sparsity - target) > max(_TOLERANCE, 1 / weight.elements + 1e-9):
        raise CellFailedError(f"layer {layer} is {100 * weight.sparsity:.2f} % sparse, not {100 * target:.2f} %")


def _check_same_program(package: PackageSummary, dense: PackageSummary) -> None:
    """The same operations as the baseline: above all, BatchNorm folded where it is folded there."""
    own, reference = (_without_storage(summary.operations) for summary in (package, dense))
    for operation in sorted(own.keys() | reference.keys()):
        if own.get(operation, 0) != reference.get(operation, 0):
            raise CellFailedError(
                f"the package has {own.get(operation, 0)} {operation} operations, the dense baseline "
                f"{reference.get(operation, 0)}"
            )


def _without_storage(operations: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in operations.items() if not name.startswith("constexpr_")}
