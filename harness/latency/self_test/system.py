"""Checks 21 to 25: tools, sleep, heat, disk, telemetry."""

import os
import shutil
import time
from pathlib import Path

import numpy as np

from coreml_prune_bench.core.cache_folder import cache_folder
from coreml_prune_bench.latency import mac
from coreml_prune_bench.latency.awake import kept_awake
from coreml_prune_bench.latency.self_test.check import Here, NotApplicable
from coreml_prune_bench.latency.thermal import THERMAL_PRESSURE
from coreml_prune_bench.runtimes import coreml, portable

_TOOLS = {
    "sysctl": mac.SYSCTL,
    "system_profiler": mac.SYSTEM_PROFILER,
    "ioreg, GPU": mac.GPU,
    "ioreg, Neural Engine": mac.NEURAL_ENGINE,
    "pmset -g": mac.POWER_SETTINGS,
    "pmset -g batt": mac.POWER_SOURCE,
    "notifyutil": THERMAL_PRESSURE,
}
_LEAST_BYTES = 5 * 2**30
_LOAD_SECONDS = 20.0
ASSERTIONS = ("pmset", "-g", "assertions")


def tools(here: Here) -> None:
    texts = {name: mac.run_tool(command) for name, command in _TOOLS.items()}
    here.note("texts", texts)
    machine, state = mac.read_machine(), mac.read_state()
    parsed = machine.device.model_dump() | state.model_dump() | {"virtual": machine.virtual, "gpu": machine.gpu_cores}
    here.note("parsed", parsed)
    here.note("processes", len(mac.parse_processes(mac.run_tool(mac.PROCESSES))))
    maybe = {"battery_percent", "neural_engine_cores"} | ({"gpu", "low_power"} if machine.virtual else set())
    unknown = [name for name, value in parsed.items() if (value is None or value == "unknown") and name not in maybe]
    here.expect(not unknown, f"not known: {', '.join(unknown)}")


def sleep(here: Here) -> None:
    wall, clock = time.time_ns(), time.perf_counter_ns()
    with kept_awake():
        until = time.monotonic() + 5
        held = ""
        while "caffeinate" not in held and time.monotonic() < until:
            _short_wait()
            held = mac.run_tool(ASSERTIONS) or ""
    for _ in range(20):
        time.sleep(0.1)
    lost_s = ((time.time_ns() - wall) - (time.perf_counter_ns() - clock)) / 1e9
    here.note("assertions", "\n".join(line for line in held.splitlines() if "caffeinate" in line))
    here.note("lost_s", round(lost_s, 3))
    here.expect("caffeinate" in held, "`pmset -g assertions` does not show caffeinate")
    here.expect(abs(lost_s) < 0.1, f"the time of day went on {lost_s:.3g} s further than perf_counter: it slept")


def heat(here: Here) -> None:
    model = coreml.Model(here.package("heavy"))
    sample = {"image": np.ones((1, 3, 64, 64), np.float32)}
    before = mac.read_state()
    if before.thermal is None:
        raise NotApplicable("the thermal state is not known: see check 21")
    until, count = time.perf_counter_ns() + _LOAD_SECONDS * 1e9, 0
    while time.perf_counter_ns() < until:
        model.predict(sample)
        count += 1
    after = mac.read_state()
    here.note("predictions", count)
    here.note("before", before.model_dump())
    here.note("after", after.model_dump())
    here.expect(before.thermal == "nominal", f"the thermal state is {before.thermal} to begin with")
    here.expect(after.thermal == "nominal", f"after 20 s of load the thermal state is {after.thermal}")


def disk(here: Here) -> None:
    free = shutil.disk_usage(here.scratch).free
    (here.scratch / "Case").touch()
    here.note("free_bytes", free)
    here.note("case sensitive", not (here.scratch / "CASE").exists())
    here.note("foreign files", sorted(file.name for file in here.packages.rglob("*") if _foreign(file)))
    here.note("cache has spaces", " " in str(cache_folder()))
    here.expect(
        free > _LEAST_BYTES, f"{free / 2**30:.1f} GiB are free; a full disk makes Core ML use the CPU, silently"
    )


def telemetry(here: Here) -> None:
    package, home = _one_package(here), here.scratch / "home"
    home.mkdir()
    # Of a new user: what was left for one before would not be written again. Nothing that reads these is loaded yet.
    os.environ.update(HOME=str(home), CFFIXED_USER_HOME=str(home))
    portable.load(package, cache=False).predict({"x": np.ones((1, 8), np.float32)})
    left = sorted(str(file.relative_to(home)) for file in home.rglob("*") if file.is_file())
    here.note("left", left)
    kept = [name for name in left if "/Microsoft/" in name]
    here.expect(not kept, f"{len(kept)} files were left in ~/Library/Caches/Microsoft")


def _one_package(here: Here) -> Path:
    from coreml_prune_bench.latency.self_test.packages import make

    make(here.packages)
    return here.package("small")


def _foreign(file: Path) -> bool:
    return file.name == ".DS_Store" or file.name.startswith("._")


def _short_wait() -> None:
    # A wait that is real on a scripted clock too: it is another process that is waited for.
    import threading

    threading.Event().wait(0.05)
