"""Is a saved package what its cell says it is? A dense model must never be reported as pruned."""

from collections.abc import Mapping
from pathlib import Path

from coreml_prune_bench.aimodel.programs import read_program
from coreml_prune_bench.core.errors import CellFailedError
from coreml_prune_bench.mlprogram.program import Program
from coreml_prune_bench.mlprogram.summary import PackageSummary, WeightSummary, kept_in
from coreml_prune_bench.models.pattern import Pattern, misfit

_TOLERANCE = 0.005
_NOT_FLOAT16 = {"fp32", "fp64"}


def check_package(
    path: Path,
    package: PackageSummary,
    targets: Mapping[str, float | None],
    dense: PackageSummary | None,
    *,
    patterns: Mapping[str, Pattern] = {},
    storage: str = "sparse",
    bits: int = 16,
) -> None:
    """Check what was read back from `path`. Raises CellFailedError with the first thing that is wrong.

    targets: the sparsity asked of each pruned layer, None where a threshold leaves it open; empty for the baseline.
    dense: the baseline, whose operations a pruned package has to share.
    patterns: how the zeros of a layer have to stand. storage, bits: the form of pruned layers, and of a value in it.
    """
    program = read_program(path)
    _check_float16(program, package)
    if dense is not None:
        _check_sparse(package, targets, dense, patterns, storage, bits)
        _check_rest_dense(package, targets)
        _check_patterns(program, package, patterns, dense)
        _check_same_program(package, dense)


def _check_float16(program: Program, package: PackageSummary) -> None:
    for weight in package.weights:
        if weight.dtype != "float16":
            raise CellFailedError(f"weight {weight.name} is {weight.dtype}, not float16")
    for operation in program.operations:
        for output in operation.outputs:
            if operation.type != "const" and output.type.dtype in _NOT_FLOAT16:
                raise CellFailedError(f"operation {output.name} ({operation.type}) computes in {output.type.dtype}")


def _check_sparse(
    package: PackageSummary,
    targets: Mapping[str, float | None],
    dense: PackageSummary,
    patterns: Mapping[str, Pattern],
    storage: str,
    bits: int,
) -> None:
    if not targets:
        raise CellFailedError("the config prunes no layer of this network")
    weights = {layer: package.weight_of_layer(layer) for layer in targets}
    _check_one_to_one(weights)
    if not any(weight.storage == storage for weight in weights.values()):
        raise CellFailedError(f"no weight in scope is stored {storage}")
    for layer, target in targets.items():
        weight = weights[layer]
        if target is None:
            continue
        if weight.storage != storage:
            raise CellFailedError(f"layer {layer} is stored {weight.storage}, not {storage}")
        if weight.bits != bits:
            raise CellFailedError(f"layer {layer} is stored with {weight.bits} bits a value, not {bits}")
        _check_target(layer, weight, target, patterns.get(layer), _zeros(dense, layer) / weight.elements)


def _check_one_to_one(weights: Mapping[str, WeightSummary]) -> None:
    """A weight that stands for two layers would be checked twice, and another one never."""
    layers: dict[str, str] = {}
    for layer, weight in weights.items():
        other = layers.setdefault(weight.name, layer)
        if other != layer:
            raise CellFailedError(f"layers {other} and {layer} are one weight in the package, {weight.name}")


def _check_rest_dense(package: PackageSummary, targets: Mapping[str, float | None]) -> None:
    in_scope = {package.weight_of_layer(layer).name for layer in targets}
    for weight in package.weights:
        if weight.name not in in_scope and weight.storage != "dense":
            raise CellFailedError(f"weight {weight.name} is not to be pruned and is stored {weight.storage}")


def _check_target(layer: str, weight: WeightSummary, target: float, pattern: Pattern | None, baseline: float) -> None:
    """baseline: the sparsity of the dense layer. Its zeros come on top where zeros have to stand in a pattern."""
    sparsity = weight.sparsity or 0.0
    # In a small layer a single weight, or group of weights, can be more than half a point.
    step = pattern.group_size(weight.shape) if pattern and pattern.zeros is None else 1
    tolerance = max(_TOLERANCE, step / weight.elements + 1e-9)
    most = max(target, baseline) if pattern is None else target + baseline
    if not target - tolerance <= sparsity <= most + tolerance:
        raise CellFailedError(f"layer {layer} is {100 * sparsity:.2f} % sparse, not {100 * target:.2f} %")


def _check_patterns(
    program: Program, package: PackageSummary, patterns: Mapping[str, Pattern], dense: PackageSummary
) -> None:
    """In the mask bits, group by group: the right number of zeros in other places is another sparsity."""
    weights = {layer: package.weight_of_layer(layer) for layer in patterns}
    kept = kept_in(program, [weight.name for weight in weights.values()])
    for layer, pattern in patterns.items():
        weight = weights[layer]
        stray = _zeros(dense, layer) + round(_TOLERANCE * weight.elements)  # training makes single weights zero, too
        if problem := misfit(kept[weight.name], pattern, stray):
            raise CellFailedError(f"layer {layer} has another pattern than asked for: {problem}")


def _zeros(package: PackageSummary, layer: str) -> int:
    return package.weight_of_layer(layer).zeros or 0


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
