"""Checks 26 and 27: a device that is connected to this Mac."""

import functools
import shutil
from typing import Any

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.latency.iphone import Credentials, DeviceRuntime, devicectl_path, find_device, with_devicectl
from coreml_prune_bench.latency.self_test.check import Here, NotApplicable
from coreml_prune_bench.latency.targets import Target, package_at


def devicectl(here: Here) -> None:
    _device_name(here)
    here.note("in PATH as it comes", shutil.which("devicectl") is not None)
    found = devicectl_path()
    here.note("xcrun --find devicectl", found)
    with_devicectl()
    here.note("in the worker's PATH", shutil.which("devicectl") is not None)
    here.expect(found is not None, "`xcrun --find devicectl` finds none: select Xcode with xcode-select")
    here.expect(shutil.which("devicectl") is not None, "coremltools, which looks for devicectl in PATH, finds none")


def app(here: Here) -> None:
    device = find_device(_device_name(here))
    here.note("system", f"{device.facts.os} {device.facts.os_version}")
    here.note("device", device.facts.name)
    opening = functools.partial(DeviceRuntime, device.identifier, Credentials.from_environment())
    try:
        runtime = opening()
    except BenchError as error:
        raise NotApplicable(str(error)) from error
    try:
        package = here.package("small")
        opened = runtime.open(Target(package, package_at(package), "all"))
        here.note("load_ns", opened.cold_load_ns)
        took: list[Any] = []
        for _ in range(3):
            opened.model.predict()
            took.append(opened.model.model_ns())
        here.note("model_ns", took)
        here.expect(all(isinstance(one, int) and one > 0 for one in took), f"predictions took {took}")
    finally:
        runtime.close()


def _device_name(here: Here) -> str:
    if here.device is None:
        raise NotApplicable("no device was named: --device NAME")
    return here.device
