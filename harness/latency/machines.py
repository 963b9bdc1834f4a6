"""What executes: this machine with Core ML or the portable runtime, or a device that is connected to this Mac."""

import functools
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from coreml_prune_bench.latency.iphone import Credentials, DeviceRuntime, find_device
from coreml_prune_bench.latency.mac import (
    Tool,
    read_machine,
    read_state,
    run_tool,
)
from coreml_prune_bench.latency.runtimes import CoreAIRuntime, CoreMLRuntime, PortableRuntime
from coreml_prune_bench.latency.session import Machine
from coreml_prune_bench.latency.worker import OpenRuntime
from coreml_prune_bench.records.accuracy import Runtime
from coreml_prune_bench.records.latency import Device, State
from coreml_prune_bench.runtimes.coreml import CoreMLMissingError, missing
from coreml_prune_bench.runtimes.protocol import RuntimeName


def this_machine(runtime: RuntimeName, tool: Tool = run_tool, system: str | None = None) -> tuple[Machine, OpenRuntime]:
    """Raises CoreMLMissingError where Core ML was asked for and the operating system has none."""
    if runtime == "coreml" and (system or sys.platform) != "darwin":
        raise CoreMLMissingError(missing())
    device = read_machine(tool, system).device
    kinds: dict[RuntimeName, tuple[Callable[[str], Runtime], OpenRuntime]] = {
        "coreml": (functools.partial(_core_ml, device), CoreMLRuntime),
        "coreai": (core_ai, CoreAIRuntime),
        "portable": (_portable, PortableRuntime),
    }
    described, opened = kinds[runtime]
    return Machine(device, described, lambda: read_state(tool, system), time.sleep), opened


def mobile_device(name: str, credentials: Credentials) -> tuple[Machine, OpenRuntime]:
    """An iPhone or iPad. Its state is not known. Raises BenchError where it cannot be measured now."""
    device = find_device(name)
    described = functools.partial(_core_ml, device.facts)
    opened = functools.partial(DeviceRuntime, device.identifier, credentials)
    return Machine(device.facts, described, State, time.sleep), opened


def _core_ml(device: Device, compute_units: str) -> Runtime:
    build = f" ({device.os_build})" if device.os_build else ""
    return Runtime(
        name="coreml",
        version=f"{device.os} {device.os_version}{build}, coremltools {version('coremltools')}",
        precision="float16",  # as the program is typed
        compute_units=compute_units,
    )


def core_ai(compute_units: str) -> Runtime:
    """Apple's runtime for a `.aimodel`, as records name it."""
    return Runtime(
        name="coreai",
        version=f"coreai-core {version('coreai-core')}",
        precision="float16",  # as the program is typed
        compute_units=compute_units,
    )


def _portable(compute_units: str) -> Runtime:
    return Runtime(name="portable", version=f"onnxruntime {version('onnxruntime')}", compute_units=compute_units)
