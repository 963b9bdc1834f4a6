"""One assumption, and what was found of it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["holds", "does not", "not applicable"]


class NotApplicable(Exception):
    """There is nothing to check here; the message says why."""


@dataclass(frozen=True)
class Here:
    """What a check is given. packages: the folder of the networks. device: the name of a connected one, or None.

    note: keeps a raw value under a name, at once. wrong: says what does not hold; the check goes on.
    other_process: what a function of this package returns in a new process, whose environment has these variables too.
    """

    packages: Path
    scratch: Path
    device: str | None
    note: Callable[[str, Any], None]
    wrong: Callable[[str], None]
    other_process: Callable[..., Any]

    def package(self, name: str) -> Path:
        """One of the networks of `packages.py`."""
        return self.packages / f"{name}.mlpackage"

    def loads(self, name: str) -> bool:
        """Whether this macOS is new enough for that network."""
        from coremltools.models import utils

        from coreml_prune_bench.latency.self_test.packages import SINCE_MACOS_15

        return name not in SINCE_MACOS_15 or tuple(utils._macos_version()) >= (15, 0)

    def expect(self, true: bool, otherwise: str) -> None:
        """`wrong`, unless it is true."""
        if not true:
            self.wrong(otherwise)


@dataclass(frozen=True)
class Check:
    """number: as docs/mac.md lists them. where: "module:function" in this folder. core_ml: it needs Core ML."""

    number: int
    name: str
    assumes: str
    where: str
    core_ml: bool = True
    limit_s: float = 120.0

    def run(self, here: Here) -> None:
        """Find out, in this process. Raises NotApplicable."""
        module, _, function = self.where.partition(":")
        getattr(import_module(f"coreml_prune_bench.latency.self_test.{module}"), function)(here)


class Found(BaseModel):
    """Of one check. reason: what does not hold, or why it does not apply. values: raw, in the order they were noted."""

    model_config = ConfigDict(frozen=True)

    number: int
    name: str
    assumes: str
    outcome: Outcome
    reason: str | None
    values: dict[str, Any]
    seconds: float


CHECKS = (
    Check(
        1, "loads", "coremltools' native module is here, for this processor, and not translated", "native:loads", False
    ),
    Check(2, "surface", "the native module has the methods that coremltools 9.0's macOS wheel has", "native:surface"),
    Check(
        3, "element types", "arrays of int32, float32 and float64 are taken, others are refused", "native:element_types"
    ),
    Check(4, "results", "Float16 comes as float32; images as RGBA or L; classes as str or int", "native:results"),
    Check(5, "batches", "results are in the order given, and the duration is the whole batch's", "native:batches"),
    Check(6, "durations", "durations are nanoseconds, None before the first prediction", "native:durations"),
    Check(
        7,
        "errors",
        "what cannot be is a RuntimeError with the text of a userInfo, and ends no process",
        "native:errors",
    ),
    Check(8, "state", "a state keeps what is written, and a stateful model refuses to do without", "native:state"),
    Check(9, "lifetime", "input arrays may go before Core ML lets go of them", "native:lifetime"),
    Check(10, "moving", "a compiled model loads from another folder", "loading:moving"),
    Check(11, "cache", "a first load is cold, later ones at that path are not, a fresh home's is", "loading:cache"),
    Check(
        12, "plan before load", "loading a compute plan makes the load after it a warm one", "loading:plan_before_load"
    ),
    Check(13, "plan", "a plan has every operation of the program and no constant", "planning:plan"),
    Check(14, "compute units", "a plan keeps to the compute units that were asked for", "planning:compute_units"),
    Check(15, "devices", "Core ML lists the Neural Engine with the cores that the system says", "planning:devices"),
    Check(16, "parity", "each compute unit predicts what the portable runtime does, within Float16", "numbers:parity"),
    Check(17, "speed of units", "the Neural Engine is used, and faster than the CPU", "numbers:speed_of_units"),
    Check(
        18,
        "quality of service",
        "a thread's class of service can be set, and a lower one is not faster",
        "numbers:qos_classes",
    ),
    Check(19, "idling", "after idling the first prediction takes no longer", "numbers:idling", limit_s=180),
    Check(
        20,
        "Apple's GPU",
        "torch's copies to it are right, and a training step is the CPU's",
        "numbers:apple_gpu",
        False,
    ),
    Check(21, "tools", "every tool prints what is read of it", "system:tools", False),
    Check(22, "sleep", "caffeinate holds the Mac awake, and no time is lost", "system:sleep", False),
    Check(23, "heat", "it stays cool under 20 s of load", "system:heat"),
    Check(24, "disk", "5 GB are free", "system:disk", False),
    Check(
        25, "telemetry", "nothing is left for a library's maker after a portable prediction", "system:telemetry", False
    ),
    Check(26, "devicectl", "xcrun finds devicectl, and the worker calls it by name", "phone:devicectl", False),
    Check(27, "app", "the app is built, started, and predicts on the device", "phone:app", limit_s=900),
    Check(28, "Core AI", "each compute unit predicts what the portable runtime does", "core_ai:core_ai", False),
)
