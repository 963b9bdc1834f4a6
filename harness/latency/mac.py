"""What this machine is, and what state it is in, from what the operating system's own tools print.

Nothing here needs administrator rights, and nothing is guessed: a tool that is missing, or prints something else,
makes its facts None. Every tool's text is parsed by a function of its own, tested on texts of several machines.

On a Mac: `sysctl` (chip, memory, build), `ioreg` (cores of the GPU and the Neural Engine), `system_profiler` (what the
model is called), `pmset` (power), `notifyutil` (the thermal pressure that thermald publishes). On Linux: /proc.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json import JSONDecodeError, loads
from pathlib import Path

from coreml_prune_bench.latency.thermal import THERMAL_PRESSURE, parse_thermal_pressure
from coreml_prune_bench.records.latency import Device, State

Tool = Callable[[Sequence[str]], str | None]
"""Runs a command and returns what it prints; None where it is missing or fails."""

SYSCTL = (
    "sysctl", "machdep.cpu.brand_string", "hw.model", "hw.memsize", "hw.perflevel0.physicalcpu",
    "hw.perflevel1.physicalcpu", "hw.ncpu", "kern.osproductversion", "kern.osversion", "kern.hv_vmm_present",
)  # fmt: skip
SYSTEM_PROFILER = ("system_profiler", "SPHardwareDataType", "-json")
GPU = ("ioreg", "-r", "-c", "AGXAccelerator", "-d", "1")
NEURAL_ENGINE = ("ioreg", "-r", "-c", "H11ANEIn", "-d", "1")
POWER_SETTINGS = ("pmset", "-g")
POWER_SOURCE = ("pmset", "-g", "batt")
PROCESSES = ("ps", "-A", "-r", "-o", "pid=", "-o", "pcpu=", "-o", "comm=")

_LIMIT_SECONDS = 20
_BUSY_PERCENT = 20.0
"""A process that takes more of one core disturbs a measurement."""


@dataclass(frozen=True)
class Machine:
    """What does not change while it runs. None: not known. virtual: a virtual machine, which has no Neural Engine."""

    device: Device
    performance_cores: int | None
    efficiency_cores: int | None
    gpu_cores: int | None
    virtual: bool | None


@dataclass(frozen=True)
class Process:
    """Another program, with its share of one core."""

    pid: int
    name: str
    cpu_percent: float


def run_tool(command: Sequence[str]) -> str | None:
    """A `Tool`: the command itself."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    # sysctl fails if one of several names is unknown, and prints the others.
    return done.stdout or None


def read_machine(tool: Tool = run_tool, system: str | None = None) -> Machine:
    """This machine; on a Mac within about half a second."""
    if (system or sys.platform) != "darwin":
        return _read_linux()
    facts = parse_sysctl(tool(SYSCTL))
    model, called = facts.get("hw.model"), parse_system_profiler(tool(SYSTEM_PROFILER))
    return Machine(
        device=Device(
            name=f"{called} ({model})" if called and model else called or model or "Mac",
            chip=facts.get("machdep.cpu.brand_string", "unknown"),
            memory_bytes=_number(facts.get("hw.memsize")),
            os="macOS",
            os_version=facts.get("kern.osproductversion", "unknown"),
            os_build=facts.get("kern.osversion"),
            neural_engine_cores=parse_neural_engine(tool(NEURAL_ENGINE)),
        ),
        performance_cores=_number(facts.get("hw.perflevel0.physicalcpu")),
        efficiency_cores=_number(facts.get("hw.perflevel1.physicalcpu")),
        gpu_cores=parse_gpu(tool(GPU)),
        virtual={"0": False, "1": True}.get(facts.get("kern.hv_vmm_present", "")),
    )


def read_state(tool: Tool = run_tool, system: str | None = None) -> State:
    """What can slow it down, at this moment; on a Mac within some tens of milliseconds."""
    load = os.getloadavg()[0]
    if (system or sys.platform) != "darwin":
        return State(load_average=load)
    on_battery, percent = parse_power_source(tool(POWER_SOURCE))
    return State(
        thermal=parse_thermal_pressure(tool(THERMAL_PRESSURE)),
        low_power=parse_low_power(tool(POWER_SETTINGS)),
        on_battery=on_battery,
        battery_percent=percent,
        load_average=load,
    )


def read_busy_processes(tool: Tool = run_tool) -> list[Process]:
    """Other programs that keep a core busy, the busiest first."""
    found = parse_processes(tool(PROCESSES))
    return [process for process in found if process.cpu_percent >= _BUSY_PERCENT and process.pid != os.getpid()]


# --- what the tools print


def parse_sysctl(text: str | None) -> dict[str, str]:
    """Values by name, of `sysctl NAME...`: a line each, "name: value"."""
    pairs = (line.partition(":") for line in (text or "").splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def parse_system_profiler(text: str | None) -> str | None:
    """What the model is called, such as "MacBook Pro", of `system_profiler SPHardwareDataType -json`."""
    try:
        return str(loads(text or "")["SPHardwareDataType"][0]["machine_name"])
    except (JSONDecodeError, LookupError, TypeError):
        return None


def parse_gpu(text: str | None) -> int | None:
    """Cores of the GPU, of `ioreg -r -c AGXAccelerator`."""
    return _first_number(r'"gpu-core-count"\s*=\s*(\d+)', text)


def parse_neural_engine(text: str | None) -> int | None:
    """Cores of all Neural Engines (an Ultra has 2), of `ioreg -r -c H11ANEIn`; None without, as in virtual ones."""
    found = re.findall(r'"ANEDevicePropertyNumANECores"\s*=\s*(\d+)', text or "")
    return sum(map(int, found)) or None


def parse_low_power(text: str | None) -> bool | None:
    """Of `pmset -g`: "lowpowermode 1", or on Macs with a high-power mode "powermode 1" (0 automatic, 2 high)."""
    mode = _first_number(r"^\s*(?:lowpowermode|powermode)\s+(\d+)", text)
    return None if mode is None else mode == 1


def parse_power_source(text: str | None) -> tuple[bool | None, float | None]:
    """Whether it runs on battery and how full that is, of `pmset -g batt`; a desktop has no second line."""
    source = re.search(r"Now drawing from '(AC|Battery|UPS) Power'", text or "")
    percent = _first_number(r"InternalBattery\S*.*?(\d+)%", text)
    return (None if source is None else source[1] != "AC"), None if percent is None else float(percent)


def parse_processes(text: str | None) -> list[Process]:
    """Of `ps` with process number, share of a core and command."""
    found = re.findall(r"^\s*(\d+)\s+(\d+[.,]?\d*)\s+(.+?)\s*$", text or "", re.MULTILINE)
    return [Process(int(pid), Path(name).name, float(percent.replace(",", "."))) for pid, percent, name in found]


def _read_linux() -> Machine:
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text() if cpuinfo.is_file() else "", re.MULTILINE)
    return Machine(
        device=Device(
            name=platform.node(),
            chip=named[1].strip() if named else platform.processor() or platform.machine(),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            os=platform.system(),
            os_version=platform.release(),
            os_build=None,
            neural_engine_cores=None,
        ),
        performance_cores=os.cpu_count(),
        efficiency_cores=None,
        gpu_cores=None,
        virtual=None,
    )


def _first_number(pattern: str, text: str | None) -> int | None:
    found = re.search(pattern, text or "", re.MULTILINE)
    return int(found[1]) if found else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
