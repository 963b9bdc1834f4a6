"""Where Core ML's compute plan means each operation to run: planned, which is not observed.

coremltools' `MLComputePlan`, of this Mac or of a connected device. Constants and compressed weights are no operations
of a device and are left out, as the plan itself leaves them out.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.records.latency import Placement, PlannedOperation

DEVICES = {"neural_engine": "Neural Engine", "gpu": "GPU", "cpu": "CPU"}
"""Our names of devices, and what they are called in tables."""

_BY_CLASS = {
    "MLNeuralEngineComputeDevice": "neural_engine",
    "MLGPUComputeDevice": "gpu",
    "MLCPUComputeDevice": "cpu",
}


class ComputePlan(Protocol):
    """What is used of coremltools' `MLComputePlan`, which has no types."""

    @property
    def model_structure(self) -> Any: ...

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any: ...

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any: ...


def placement(plan: ComputePlan, function: str = "main") -> Placement:
    """The placement of one function. Raises PackageError for what is no ML program."""
    program = plan.model_structure.program
    if program is None:
        raise PackageError("a compute plan of what is no ML program")
    operations = []
    for operation in _operations(program.functions[function].block):
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        type_ = operation.operator_name.rpartition(".")[2]  # Core ML writes "ios17.conv"
        if usage is None or type_ == "const" or type_.startswith("constexpr_"):
            continue
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        operations.append(
            PlannedOperation(
                name=operation.outputs[0].name if operation.outputs else "",
                type=type_,
                preferred=_device(usage.preferred_compute_device),
                supported=tuple(_device(device) for device in usage.supported_compute_devices),
                cost=None if cost is None else float(cost.weight),
            )
        )
    return summed_up(operations)


def summed_up(operations: list[PlannedOperation]) -> Placement:
    """Counts, and shares of the estimated cost, which need not sum up to 1 in the plan."""
    counts = Counter(operation.preferred for operation in operations)
    total = sum(operation.cost or 0.0 for operation in operations)
    cost = {
        device: sum(o.cost or 0.0 for o in operations if o.preferred == device) / total if total else 0.0
        for device in counts
    }
    return Placement(preferred=dict(counts), cost=cost, operations=tuple(operations))


def share(placed: Placement, device: str) -> float:
    """The fraction of operations that are planned for a device."""
    total = sum(placed.preferred.values())
    return placed.preferred.get(device, 0) / total if total else 0.0


def _operations(block: Any) -> Iterator[Any]:
    """Those of nested blocks too, after the loop or condition that holds them."""
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _operations(nested)


def _device(device: Any) -> str:
    name = type(device).__name__
    return _BY_CLASS.get(name, name)
