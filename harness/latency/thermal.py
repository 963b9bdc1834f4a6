"""The thermal state of a Mac: the pressure that thermald publishes, in the words of ProcessInfo."""

import re

from coreml_prune_bench.records.latency import Thermal

THERMAL_PRESSURE = ("notifyutil", "-g", "com.apple.system.thermalpressurelevel")
"""The command that prints it; needs no rights."""


def parse_thermal_pressure(text: str | None) -> Thermal | None:
    """Of `notifyutil -g com.apple.system.thermalpressurelevel`: the level in the words of ProcessInfo.thermalState.

    The levels are those of OSThermalNotification.h on macOS: nominal, moderate, heavy, trapping, sleeping.
    ProcessInfo itself is coarser: it is known to call heavy pressure, at which the chip is slowed down, still "fair".
    """
    found = re.search(r"thermalpressurelevel\s+(\d+)\s*$", text or "", re.MULTILINE)
    level = int(found[1]) if found else None
    levels: tuple[Thermal, ...] = ("nominal", "fair", "serious", "critical", "critical")
    return levels[level] if level is not None and level < len(levels) else None
