"""A machine's facts and state, from what macOS prints on five machines, and from /proc."""

import os

import pytest

from coreml_prune_bench.latency import mac as machine
from coreml_prune_bench.latency.mac import (
    Process,
    read_busy_processes,
    read_machine,
    read_state,
)
from coreml_prune_bench.latency.thermal import parse_thermal_pressure
from coreml_prune_bench.records.latency import State
from tests.latency.macos import tool_of

MACS = {
    "m1-air-macos14": ("MacBook Air (MacBookAir10,1)", "Apple M1", "14.5", "23F79", 8 << 30, 16, 7, (4, 4), False),
    "m2pro-macos15": ("MacBook Pro (Mac14,9)", "Apple M2 Pro", "15.5", "24F74", 16 << 30, 16, 16, (6, 4), False),
    "m4-mini-macos26": ("Mac mini (Mac16,10)", "Apple M4", "26.1", "25B78", 16 << 30, 16, 10, (4, 6), False),
    "m4-air-hot-macos26": ("MacBook Air (Mac16,12)", "Apple M4", "26.1", "25B78", 16 << 30, 16, 8, (4, 6), False),
    "virtual-macos15": (
        "Apple Virtual Machine 1 (VirtualMac2,1)", "Apple M1 (Virtual)", "15.5", "24F74", 7 << 30,
        None, None, (3, None), True,
    ),
}  # fmt: skip

STATES = {
    "m1-air-macos14": State(thermal="nominal", low_power=False, on_battery=False, battery_percent=100),
    "m2pro-macos15": State(thermal="nominal", low_power=False, on_battery=True, battery_percent=78),
    "m4-mini-macos26": State(thermal="nominal", low_power=False, on_battery=False),
    "m4-air-hot-macos26": State(thermal="serious", low_power=True, on_battery=True, battery_percent=19),
    "virtual-macos15": State(on_battery=False),
}


@pytest.mark.parametrize("name", MACS)
def test_a_macs_facts(name: str) -> None:
    called, chip, version, build, memory, neural_engine, gpu, cores, virtual = MACS[name]
    found = read_machine(tool_of(name), "darwin")
    device = found.device
    assert (device.name, device.chip, device.os, device.os_version) == (called, chip, "macOS", version)
    assert (device.os_build, device.memory_bytes, device.neural_engine_cores) == (build, memory, neural_engine)
    assert (found.gpu_cores, found.performance_cores, found.efficiency_cores) == (gpu, *cores)
    assert found.virtual is virtual


@pytest.mark.parametrize("name", STATES)
def test_a_macs_state(name: str) -> None:
    state = read_state(tool_of(name), "darwin")
    assert state.model_copy(update={"load_average": None}) == STATES[name]
    assert state.load_average is not None


def test_what_no_tool_tells_is_unknown() -> None:
    found = read_machine(lambda command: None, "darwin")
    assert (found.device.name, found.device.chip, found.device.memory_bytes) == ("Mac", "unknown", None)
    assert read_state(lambda command: None, "darwin").model_copy(update={"load_average": None}) == State()
    assert read_machine(lambda command: "gibberish\n{", "darwin").device.neural_engine_cores is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("com.apple.system.thermalpressurelevel 0\n", "nominal"),
        ("com.apple.system.thermalpressurelevel 1\n", "fair"),
        ("com.apple.system.thermalpressurelevel 2\n", "serious"),
        ("com.apple.system.thermalpressurelevel 3\n", "critical"),
        ("com.apple.system.thermalpressurelevel 4\n", "critical"),
        ("com.apple.system.thermalpressurelevel 9\n", None),
        ("com.apple.system.thermalpressurelevel: Failed with code 1\n", None),
        (None, None),
    ],
)
def test_thermal_pressure(text: str | None, expected: str | None) -> None:
    assert parse_thermal_pressure(text) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (" lowpowermode         1", True),
        (" lowpowermode         0", False),
        (" powermode            1", True),
        (" powermode            2", False),  # high power
        (" powernap             1", None),
    ],
)
def test_low_power_mode(line: str, expected: bool | None) -> None:
    assert machine.parse_low_power(f"Currently in use:\n{line}\n") is expected


def test_programs_that_keep_a_core_busy() -> None:
    assert read_busy_processes(tool_of("m4-air-hot-macos26")) == [
        Process(7211, "swift-frontend", 96.4),
        Process(350, "mds_stores", 31.0),
    ]
    assert read_busy_processes(tool_of("m2pro-macos15")) == []
    assert read_busy_processes(lambda command: f" {os.getpid()} 99.0 python3.11\n") == []


def test_this_machine() -> None:
    found = read_machine()
    assert found.device.chip
    assert found.device.memory_bytes
    assert found.device.memory_bytes > 1 << 28
    assert read_state().load_average is not None


def test_a_tool_that_is_missing_or_hangs() -> None:
    assert machine.run_tool(["no-such-tool-anywhere"]) is None
    assert machine.run_tool(["true"]) is None
    assert machine.run_tool(["echo", "x"]) == "x\n"
