"""The rest of a Mac: what Python says of the operating system, the tools in PATH, the clock, and libSystem."""

import atexit
import contextlib
import importlib
import json
import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from coreml_prune_bench.core.environment import environment
from coreml_prune_bench.latency import energy, libsystem, qos
from coreml_prune_bench.latency.worker import spare_imports
from coreml_prune_bench.runtimes import portable
from coreml_prune_bench.testing.clock import Clock
from coreml_prune_bench.testing.devices import FOLDER_VARIABLE, put_app_sources
from coreml_prune_bench.testing.install import Place, StandIn, installed, replaced
from coreml_prune_bench.testing.native import THERMAL
from coreml_prune_bench.testing.script import Script

_UNTIL_THE_END = contextlib.ExitStack()
atexit.register(_UNTIL_THE_END.close)

# Imported before the platform is another: what they are built for does not change.
_FIRST = (
    "coremltools",
    "onnx",
    "onnxruntime",
    "scipy.special",
    "coreml_prune_bench.runtimes.portable.translate",
    "coreml_prune_bench.runtimes.portable.session",
)

_MORE = (
    "coremltools.models.ml_program.experimental.compute_plan_utils",
    "coreml_prune_bench.latency.self_test.run",
    "coreml_prune_bench.latency.self_test.numbers",
    "coreml_prune_bench.latency.self_test.system",
    "coreml_prune_bench.latency.self_test.phone",
)


def enter(script: Script, clock: Clock | None = None) -> None:
    """This process is the scripted Mac from now on, on its clock; a `RealClock` makes it take the scripted times."""
    _UNTIL_THE_END.enter_context(mac(script, clock))


@contextlib.contextmanager
def mac(script: Script, clock: Clock | None = None, *, scripted_time: bool = True) -> Iterator[StandIn]:
    """The scripted Mac inside the block. scripted_time: `time`'s functions are its clock; a new one, if None."""
    for name in _FIRST:
        importlib.import_module(name)
    with contextlib.ExitStack() as stack:
        stand_in = stack.enter_context(installed(script, clock))
        home = stand_in.world.home
        tools = home / "Stand-In Tools"  # (with spaces in it, as users' folders have)
        write_tools(tools, script, home)
        places = [*_platform(script), *_libraries(stand_in)]
        if scripted_time:
            places += _time(stand_in)
        stack.enter_context(replaced(places))
        stack.enter_context(environment(HOME=str(home), PATH=f"{tools}{os.pathsep}{os.environ['PATH']}"))
        if FOLDER_VARIABLE in os.environ:
            put_app_sources(home / "modelrunner")
        yield stand_in


def _platform(script: Script) -> list[Place]:
    version = ".".join(map(str, script.macos))
    return [
        (sys, "platform", "darwin"),
        (platform, "system", lambda: "Darwin"),
        (platform, "machine", lambda: "x86_64" if script.translated else "arm64"),
        (platform, "mac_ver", lambda *_: (version, ("", "", ""), "arm64")),
        (platform, "release", lambda: "24.5.0"),
        (platform, "version", lambda: "Darwin Kernel Version 24.5.0: root:xnu-11417.121.6~2/RELEASE_ARM64_T6020"),
    ]


def enter_with_real_time(script: Script) -> None:
    """`enter`, without a wait: scripted times are only what the native module says of itself, and take none."""
    _UNTIL_THE_END.enter_context(mac(script, scripted_time=False))


def preload() -> None:
    """Import what `enter` would, so that processes forked from this one start at once."""
    spare_imports()
    for name in (*_FIRST, *_MORE):
        importlib.import_module(name)


def _time(stand_in: StandIn) -> list[Place]:
    clock = stand_in.clock
    return [
        (time, "perf_counter_ns", clock),
        (time, "perf_counter", lambda: clock.now_ns / 1e9),
        (time, "time_ns", clock.wall),
        (time, "time", lambda: clock.wall_ns / 1e9),
        (time, "sleep", stand_in.world.wait),
    ]


def _libraries(stand_in: StandIn) -> list[Place]:
    script = stand_in.world.script
    usage = shutil.disk_usage("/")
    free = round(script.free_gib * 2**30)
    places: list[Place] = [
        (libsystem, "library", lambda: _LibSystem(stand_in)),
        (energy, "library", lambda: _Energy(stand_in)),
        (shutil, "disk_usage", lambda path: usage._replace(free=free)),
    ]
    if script.telemetry:
        places.append((portable, "load", _reporting(portable.load)))
    if script.mps != "none" and sys.modules.get("torch", "not yet") is not None:  # a process may do without
        places += _apple_gpu(script)
    return places


def _apple_gpu(script: Script) -> list[Place]:
    """torch's, which is the CPU; a corrupt one changes a pixel of each batch on the way."""
    import torch

    from coreml_prune_bench.models import loading, mps

    moved = loading._on_device

    def corrupted(batch: Any, device: Any) -> Any:
        images, labels = moved(batch, device)
        images = images.clone()
        images.view(-1)[0] ^= 255
        return images, labels

    return [
        (torch.backends.mps, "is_available", lambda: True),
        (mps, "device", lambda: torch.device("cpu")),
        (loading, "_on_device", corrupted if script.mps == "corrupt" else moved),
    ]


class _LibSystem:
    """What sets a thread's class of service, and what tells the memory of a process."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in

    def pthread_set_qos_class_self_np(self, kind: int, relative: int) -> int:
        if self._stand_in.world.script.qos_settable:
            self._stand_in.world.qos = {number: name for name, number in qos.CLASSES.items()}[kind]
        return 0

    def qos_class_self(self) -> int:
        return qos.CLASSES[self._stand_in.world.qos]

    def proc_pid_rusage(self, pid: int, flavor: int, told: Any) -> int:
        world = self._stand_in.world
        more = world.script.memory_mib[bool(world.predictions)] if world.models else 0.0
        told._obj[9] = told._obj[30] = round((_PROCESS_MIB + more) * 2**20)
        return 0


class _Energy:
    """zeus_apple_silicon: whole mJ, as its counters have them."""

    def __init__(self, stand_in: StandIn) -> None:
        if stand_in.world.script.energy_mj is None:
            raise ImportError("No module named 'zeus_apple_silicon'")
        self._world = stand_in.world

    def AppleEnergyMonitor(self) -> "_Energy":
        self._began: dict[str, tuple[float, int]] = {}
        return self

    def begin_window(self, key: str) -> None:
        self._began[key] = self._world.seconds, self._world.predictions

    def end_window(self, key: str) -> SimpleNamespace:
        seconds, predictions = self._began.pop(key)
        seconds, predictions = self._world.seconds - seconds, self._world.predictions - predictions
        script = self._world.script
        assert script.energy_mj is not None
        used = {
            name: round(seconds * script.idle_mw.get(name, 0.0) + predictions * script.energy_mj.get(name, 0.0))
            for name in ("neural_engine", "gpu", "cpu")
        }
        return SimpleNamespace(ane_mj=used["neural_engine"], gpu_mj=used["gpu"], cpu_total_mj=used["cpu"])


def _reporting(load: Callable[..., Any]) -> Callable[..., Any]:
    """The portable runtime's `load`, with a library behind it that keeps a number of this device for its maker."""

    def loaded(*arguments: Any, **options: Any) -> Any:
        kept = Path(os.environ["HOME"]) / "Library/Caches/Microsoft/DeveloperTools/deviceid"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text("x")
        return load(*arguments, **options)

    return loaded


# --- the tools


def write_tools(folder: Path, script: Script, home: Path) -> None:
    """Shell scripts under the names of macOS's tools, which print what they would of the scripted Mac."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    for name, body in _tools(script, home).items():
        path = folder / name
        silent = name in script.silent
        path.write_text("#!/bin/sh\n" + ("exit 1\n" if silent else body))
        path.chmod(stat.S_IRWXU)


def _tools(script: Script, home: Path) -> dict[str, str]:
    """Without Xcode's, where `devices.connect` has put them."""
    tools = _system_tools(script, home)
    if FOLDER_VARIABLE not in os.environ:
        found = home / "Xcode.app/Contents/Developer/usr/bin/devicectl"
        if script.devicectl_found:
            found.parent.mkdir(parents=True, exist_ok=True)
            found.write_text(_NO_DEVICES)
            found.chmod(stat.S_IRWXU)
        tools["xcrun"] = _XCRUN.format(found=found) if script.devicectl_found else _XCRUN_WITHOUT
    return tools


_NO_DEVICES = """#!/bin/sh
for last; do :; done
echo '{"result": {"devices": []}}' > "$last"
"""
_XCRUN = """if [ "$1" = --find ]; then echo "{found}"; else shift; exec "{found}" "$@"; fi
"""
_XCRUN_WITHOUT = """[ "$1" = --find ] && shift
echo "xcrun: error: unable to find utility \\"$1\\", not a developer tool or in PATH" >&2
exit 72
"""


def _system_tools(script: Script, home: Path) -> dict[str, str]:
    facts = {
        "machdep.cpu.brand_string": "Apple M2 Pro",
        "hw.model": "VirtualMac2,1" if script.virtual else "Mac14,9",
        "hw.memsize": 17179869184,
        "hw.perflevel0.physicalcpu": 8,
        "hw.perflevel1.physicalcpu": 4,
        "hw.ncpu": 12,
        "kern.osproductversion": ".".join(map(str, script.macos)),
        "kern.osversion": "24F74",
        "kern.hv_vmm_present": int(script.virtual),
    }
    hardware = {"machine_name": "MacBook Pro", "serial_number": "X0X0X0X0X0", "platform_UUID": _UUID}
    engine = '+-o H11ANEIn  <class H11ANEIn>\n  "DeviceProperties" = {"ANEDevicePropertyNumANECores"={cores}}\n'
    engines = engine.replace("{cores}", str(script.neural_engine_cores)) * script.engines
    held = f'assertion="{home}/caffeinate.pid"'
    return {
        "sysctl": _cases(
            "$*",
            {
                "*proc_translated*": _print(str(int(script.translated))),
                "*": _print("\n".join(f"{name}: {value}" for name, value in facts.items())),
            },
        ),
        "sw_vers": _print(f"ProductName:\t\tmacOS\nProductVersion:\t\t{facts['kern.osproductversion']}"),
        "system_profiler": _print(json.dumps({"SPHardwareDataType": [hardware]}, indent=2, separators=(",", " : "))),
        "ioreg": _cases(
            "$*",
            {
                "*AGX*": _print('+-o AGXAcceleratorG14X\n  "gpu-core-count" = 19'),
                "*": _print("" if script.neural_engine_cores is None else engines),
            },
        ),
        "pmset": held
        + "\n"
        + _cases(
            "$*",
            {
                "*assertions*": 'if [ -f "$assertion" ]; then echo "   pid $(cat "$assertion")(caffeinate): '
                'PreventUserIdleSystemSleep"; else echo "No assertions"; fi',
                "*batt*": _print("Now drawing from 'AC Power'"),
                "*": _print(" lowpowermode         0"),
            },
        ),
        "notifyutil": f'level=0; [ -f "{home}/{THERMAL}" ] && level=$(cat "{home}/{THERMAL}"); '
        'echo "com.apple.system.thermalpressurelevel $level"\n',
        "ps": _cases("$*", {"*pri*": _print("31"), "*": _print("  1   0.5 /sbin/launchd")}),
        "caffeinate": (f'{held}; echo $$ > "$assertion"\n' if script.awake else "")
        + 'for last; do :; done; while kill -0 "$last" 2>/dev/null; do sleep 0.1; done; rm -f "$assertion"\n',
    }


_PROCESS_MIB = 180.0
_UUID = "0B0D6E7C-0000-5000-8000-00000000ABCD"


def _print(text: str) -> str:
    return f"cat <<'END'\n{text}\nEND\n" if text else ":\n"


def _cases(word: str, cases: dict[str, str]) -> str:
    return f'case "{word}" in\n' + "".join(f"{pattern})\n{body}\n;;\n" for pattern, body in cases.items()) + "esac\n"
