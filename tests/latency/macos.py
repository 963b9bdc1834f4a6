"""The tools of macOS, as `tests/macos_outputs` has what they print."""

from collections.abc import Sequence
from pathlib import Path

from coreml_prune_bench.latency import mac as machine
from coreml_prune_bench.latency.thermal import THERMAL_PRESSURE

FOLDER = Path(__file__).parent / "macos_outputs"

_FILES = {
    machine.SYSCTL: "sysctl",
    machine.SYSTEM_PROFILER: "system_profiler",
    machine.GPU: "ioreg_gpu",
    machine.NEURAL_ENGINE: "ioreg_neural_engine",
    machine.POWER_SETTINGS: "pmset_g",
    machine.POWER_SOURCE: "pmset_g_batt",
    THERMAL_PRESSURE: "notifyutil",
    machine.PROCESSES: "ps",
}


def tool_of(name: str) -> machine.Tool:
    """The tools on one of the machines."""

    def run(command: Sequence[str]) -> str | None:
        path = FOLDER / name / f"{_FILES[tuple(command)]}.txt"
        return path.read_text() if path.is_file() else None

    return run
