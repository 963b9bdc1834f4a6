"""A Mac on which every check of the self-test holds, and what can be wrong with one: each a switch of its own."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coreml_prune_bench.testing.script import Latency, Script


def plausible(home: str | None = None) -> Script:
    """A Mac as public sources have it: times, in the networks of the self-test, of an M2 Pro's order of magnitude."""
    return Script(
        latencies={
            "light": Latency(ms=0.3, noise=0),
            "light cpu_only": Latency(ms=0.5, noise=0),
            "heavy": Latency(ms=0.9, noise=0),
            "heavy cpu_only": Latency(ms=5.0, noise=0),
        },
        cold_load_ms=800,
        cached_load_ms=40,
        mps="right",
        predicts="new",
        home=home,
    )


@dataclass(frozen=True)
class Lie:
    """What is otherwise than assumed, the number of the check that is to find it, and how the script tells it."""

    told: str
    check: int
    changes: Mapping[str, Any]

    def of(self, script: Script) -> Script:
        """The script with this one lie."""
        return dataclasses.replace(script, **self.changes)


LIES = (
    Lie("Python is translated by Rosetta", 1, {"translated": True}),
    Lie("a method of the native module is gone", 2, {"lacks": ("auto_set_specification_version",)}),
    Lie("int64 is accepted", 3, {"arrays": ("int32", "int64", "float32", "float64")}),
    Lie("float64 is refused", 3, {"arrays": ("int32", "float32")}),
    Lie("Float16 results come as Float16", 4, {"float16_as": "float16"}),
    Lie("a batch's duration is one sample's", 5, {"batch_duration": "one"}),
    Lie("a batch comes back in another order", 5, {"batch_in_order": False}),
    Lie("durations are milliseconds", 6, {"duration_unit_ns": 1e6}),
    Lie("a duration is 0 before the first prediction", 6, {"duration_before": 0}),
    Lie("errors are sentences", 7, {"dumps": False}),
    Lie("a state forgets what is written", 8, {"keeps_state": False}),
    Lie("input arrays that are gone end the process", 9, {"segfaults_late": True}),
    Lie("a compiled model loads only where it was loaded first", 10, {"moves": False}),
    Lie("a load under a fresh home is warm", 11, {"fresh_home_is_cold": False}),
    Lie("the cache goes by content", 11, {"cache_key": "content"}),
    Lie("a plan warms nothing", 12, {"plan_warms": False}),
    Lie("constants are planned", 13, {"plans_constants": True}),
    Lie("a plan takes any compute unit", 14, {"plans_follow_units": False}),
    Lie("Core ML lists 8 of 16 cores", 15, {"listed_cores": 8}),
    Lie("the Neural Engine is off by 0.2", 16, {"error": {"ALL": 0.2, "CPU_AND_NE": 0.2}}),
    Lie(
        "`all` is as slow as the CPU", 17, {"latencies": {"heavy": Latency(ms=5.0, noise=0), "light": Latency(ms=0.5)}}
    ),
    Lie("a class of service cannot be set", 18, {"qos_settable": False}),
    Lie("background work is faster", 18, {"qos_factors": {"background": 0.5}}),
    Lie("waking up takes 260 ms", 19, {"rewake_ms": 260.0}),
    Lie("copies to Apple's GPU are corrupt", 20, {"mps": "corrupt"}),
    Lie("notifyutil prints nothing", 21, {"silent": ("notifyutil",)}),
    Lie("the clock stops for 94 minutes", 22, {"sleeps_at_s": 0.5, "sleeps_for_s": 94 * 60.0}),
    Lie("caffeinate does not hold", 22, {"awake": False}),
    Lie("it is throttled under load", 23, {"throttles_after": 5000}),
    Lie("the disk is full", 24, {"free_gib": 1.0}),
    Lie("a library leaves a number of the device", 25, {"telemetry": True}),
    Lie("devicectl is outside of PATH and of Xcode", 26, {"devicectl_found": False}),
)
