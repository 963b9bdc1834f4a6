"""Checks 13 to 15: compute plans, and the list of devices."""

from collections import Counter
from typing import Any

from coreml_prune_bench.latency.mac import NEURAL_ENGINE, parse_neural_engine, run_tool
from coreml_prune_bench.latency.placement import placement
from coreml_prune_bench.latency.self_test.check import Here, NotApplicable
from coreml_prune_bench.runtimes import coreml
from coreml_prune_bench.runtimes.protocol import COMPUTE_UNITS

_CONSTANTS = ("const", "constexpr_")


def plan(here: Here) -> None:
    made = _plan(here, "sparse", "all")
    operations = made.model_structure.program.functions["main"].block.operations
    expected = [one for one in operations if not one.operator_name.rpartition(".")[2].startswith(_CONSTANTS)]
    constants = [one for one in operations if one not in expected]
    planned = [made.get_compute_device_usage_for_mlprogram_operation(one) is not None for one in constants]
    costs = [made.get_estimated_cost_for_mlprogram_operation(one) for one in expected]
    placed = placement(made)
    here.note("operator_names", sorted({one.operator_name for one in operations}))
    here.note("outputs", [one.outputs[0].name for one in expected])
    here.note("operations", [len(placed.operations), len(expected)])
    here.note("planned constants", sum(planned))
    here.note("sum of costs", sum(cost.weight for cost in costs if cost is not None))
    here.expect(len(placed.operations) == len(expected), f"{len(placed.operations)} of {len(expected)} are in the plan")
    here.expect(not any(planned), f"{sum(planned)} constants are in the plan")
    here.expect(all("." in one.operator_name for one in expected), "an operation is named without its operation set")


def compute_units(here: Here) -> None:
    found = {units: placement(_plan(here, "light", units)) for units in COMPUTE_UNITS}
    here.note("preferred", {units: dict(sorted(one.preferred.items())) for units, one in found.items()})
    counts = {name: len(placement(_plan(here, name, "all")).operations) for name in ("light", "sparse")}
    here.note("operations", counts)
    forbidden = {
        "cpu_only": ("gpu", "neural_engine"),
        "cpu_and_ne": ("gpu",),
        "cpu_and_gpu": ("neural_engine",),
    }
    for units, devices in forbidden.items():
        planned = [device for device in devices if found[units].preferred.get(device)]
        here.expect(not planned, f"with {units}, operations are planned on {', '.join(planned)}")
    here.expect(counts["light"] == counts["sparse"], f"a sparse network has other operations: {counts}")


def devices(here: Here) -> None:
    from coremltools.models.compute_device import MLComputeDevice, MLNeuralEngineComputeDevice

    try:
        listed = MLComputeDevice.get_all_compute_devices()
    except RuntimeError as error:
        raise NotApplicable(f"no list of devices: {coreml.said(error)}") from error
    cores = [one.total_core_count for one in listed if isinstance(one, MLNeuralEngineComputeDevice)]
    told = parse_neural_engine(run_tool(NEURAL_ENGINE))
    here.note("listed", dict(Counter(type(one).__name__ for one in listed)))
    here.note("cores listed", cores)
    here.note("cores by ioreg", told)
    here.expect(bool(listed), "no compute device is listed")
    here.expect(sum(cores) == (told or 0), f"Core ML lists {sum(cores)} cores of Neural Engines, ioreg {told or 0}")


def has_neural_engine() -> bool:
    """Whether Core ML lists one; before macOS 14, whether the system has one."""
    from coremltools.models.compute_device import MLComputeDevice, MLNeuralEngineComputeDevice

    try:
        return any(isinstance(one, MLNeuralEngineComputeDevice) for one in MLComputeDevice.get_all_compute_devices())
    except RuntimeError:
        return parse_neural_engine(run_tool(NEURAL_ENGINE)) is not None


def require_neural_engine() -> None:
    """Raises NotApplicable without one."""
    if not has_neural_engine():
        raise NotApplicable("this machine has no Neural Engine, or is a virtual one")


def _plan(here: Here, name: str, units: str) -> Any:
    compiled = coreml.Model(here.package(name), compute_units=units).compiled.path
    try:
        return coreml.compute_plan(compiled, units)
    except RuntimeError as error:
        raise NotApplicable(f"no compute plan: {coreml.said(error)}") from error
