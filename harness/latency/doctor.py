"""What this machine can measure, what is missing for the rest, and what would disturb a measurement now."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency.iphone import MobileDevice, devicectl_path, list_devices, refreshed
from coreml_prune_bench.latency.mac import (
    Machine,
    Process,
    Tool,
    read_busy_processes,
    read_machine,
    read_state,
    run_tool,
)
from coreml_prune_bench.records.latency import State
from coreml_prune_bench.runtimes.coreml import cache_bytes

PLANS_SINCE = (14, 4)
"""The macOS with compute plans."""

SPARSE_SINCE = (14, 0)
"""The macOS that decompresses sparse weights while it predicts, in some cases; earlier ones do so when loading."""

_BUSY_SHARE = 0.5
"""Of the processors: a load average above it disturbs."""


@dataclass(frozen=True)
class Ability:
    """Something that can be measured here, or what it lacks and what to do."""

    name: str
    lacks: str | None = None


@dataclass(frozen=True)
class Report:
    """compute_devices: as coremltools tells them; None where it does not. disturbances: as things are now.

    cache_bytes: of what Core ML has specialized for this executable.
    """

    machine: Machine
    state: State
    coremltools: str
    compute_devices: tuple[str, ...] | None
    cache_bytes: int
    devices: tuple[MobileDevice, ...]
    abilities: tuple[Ability, ...]
    disturbances: tuple[str, ...]


def examine(
    tool: Tool = run_tool,
    system: str | None = None,
    *,
    compute_devices: "Callable[[], tuple[str, ...] | None] | None" = None,
    which: Callable[[str], str | None] = shutil.which,
) -> Report:
    """Read the machine; on a Mac with Xcode, also what devices are there."""
    system = system or sys.platform
    machine, state = read_machine(tool, system), read_state(tool, system)
    found = (compute_devices or core_ml_devices)() if system == "darwin" else None
    core_ml_lacks = core_ml_problem() if system == "darwin" and compute_devices is None else None
    if found == ():
        core_ml_lacks = "Core ML to list a compute device: it lists none here"
    missing_tools = [name for name in ("xcodebuild", "devicectl") if which(name) is None]
    if "devicectl" in missing_tools and system == "darwin" and which is shutil.which and devicectl_path():
        missing_tools.remove("devicectl")  # in Xcode, where xcrun finds it
    devices, lacks_devices = _devices(missing_tools) if system == "darwin" else ((), _NEEDS_MAC)
    return Report(
        machine=machine,
        state=state,
        coremltools=version("coremltools"),
        compute_devices=found,
        cache_bytes=cache_bytes() if system == "darwin" else 0,
        devices=devices,
        abilities=_abilities(machine, system, found, lacks_devices, core_ml_lacks),
        disturbances=tuple(_disturbances(machine, state, read_busy_processes(tool))),
    )


def core_ml_problem() -> str | None:
    """What keeps Core ML from loading on this Mac, as Python says it; None where it loads."""
    from coreml_prune_bench.runtimes import coreml

    if coreml.is_available():
        return None
    try:
        import_module(coreml.NATIVE)
    except ImportError as error:
        # coremltools swallows it.
        return f"coremltools' native module, which does not load: {' '.join(str(error).split())}"
    return "Core ML itself in coremltools: something else stands in its place"


def core_ml_devices() -> tuple[str, ...] | None:
    """The compute devices that Core ML has, in words; None before macOS 14, or where Core ML does not load."""
    from coreml_prune_bench.runtimes import coreml

    if not coreml.is_available():
        return None
    from coremltools.models.compute_device import MLComputeDevice, MLNeuralEngineComputeDevice

    try:
        devices = MLComputeDevice.get_all_compute_devices()
    except RuntimeError:
        return None
    return tuple(
        f"Neural Engine ({device.total_core_count} cores)"
        if isinstance(device, MLNeuralEngineComputeDevice)
        else type(device).__name__.removeprefix("ML").removesuffix("ComputeDevice")
        for device in devices
    )


_NEEDS_MAC = "a Mac: Core ML is not on this operating system"


def _abilities(
    machine: Machine,
    system: str,
    compute_devices: tuple[str, ...] | None,
    lacks_devices: str | None,
    core_ml_lacks: str | None,
) -> tuple[Ability, ...]:
    core_ml = _NEEDS_MAC if system != "darwin" else core_ml_lacks
    return (
        Ability("accuracy and size, in the portable runtime"),
        Ability("latency of the portable runtime on this processor, which says nothing of Core ML"),
        Ability("accuracy and parity through Core ML", core_ml),
        Ability("latency through Core ML", core_ml),
        Ability("latency on the Neural Engine", core_ml or _lacks_neural_engine(machine, compute_devices)),
        Ability(
            "speed of sparse weights", core_ml or _lacks_version(machine, SPARSE_SINCE, "decompresses them on the fly")
        ),
        Ability("placement, from compute plans", core_ml or _lacks_version(machine, PLANS_SINCE, "has compute plans")),
        Ability("latency on an iPhone or iPad", lacks_devices),
    )


def _lacks_neural_engine(machine: Machine, compute_devices: tuple[str, ...] | None) -> str | None:
    if machine.virtual:
        return "a Mac that is no virtual machine: these have no Neural Engine"
    listed = any("Neural Engine" in device for device in compute_devices or ())
    return None if listed or machine.device.neural_engine_cores else "a Neural Engine: no such device was found"


def _lacks_version(machine: Machine, needed: tuple[int, int], why: str) -> str | None:
    parts = [int(part) for part in machine.device.os_version.split(".")[:2] if part.isdecimal()]
    if not parts or (*parts, 0)[:2] >= needed:
        return None
    return f"macOS {needed[0]}.{needed[1]}, the first that {why}; this is {machine.device.os_version}"


def _devices(missing_tools: list[str]) -> tuple[tuple[MobileDevice, ...], str | None]:
    """What devices are there, and what is missing to measure on one."""
    if missing_tools:
        return (), f"Xcode 15 or newer, selected with xcode-select: {' and '.join(missing_tools)} not found"
    sources = Path(getattr(find_spec("coremltools"), "origin", "") or "").parent / "modelrunner"
    try:
        devices = tuple(refreshed(device) for device in list_devices())
    except BenchError as error:
        return (), f"an answer of devicectl: {error}"
    if not sources.is_dir():
        return devices, f"the sources of coremltools' app, which its wheel for macOS has: {sources}"
    if not devices:
        return devices, "a device: pair one with this Mac, in Xcode under Devices and Simulators"
    ready = [device for device in devices if device.problem is None]
    return devices, None if ready else f"a device that is ready: {devices[0].name!r} is {devices[0].problem}"


def _disturbances(machine: Machine, state: State, busy: list[Process]) -> list[str]:
    told = []
    if state.thermal not in (None, "nominal"):
        told.append(f"the thermal state is {state.thermal}: let it cool down")
    if state.low_power:
        told.append("low-power mode is on: switch it off in the battery settings")
    if state.on_battery:
        told.append("it runs on battery: connect its power adapter")
    cores = sum(count or 0 for count in (machine.performance_cores, machine.efficiency_cores))
    if cores and state.load_average is not None and state.load_average > _BUSY_SHARE * cores:
        told.append(f"the load average is {state.load_average:.1f} on {cores} cores: end other work")
    told += [f"{process.name} takes {process.cpu_percent:.0f} % of a core" for process in busy[:3]]
    return told
