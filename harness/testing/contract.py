"""A script from the file that `doctor --self-test --out` wrote on a Mac: the stand-in then is what that Mac was."""

from collections.abc import Mapping
from typing import Any

from coreml_prune_bench.latency.self_test.run import SelfTest
from coreml_prune_bench.testing.lies import plausible
from coreml_prune_bench.testing.script import Latency, Script, script_of

_NUMPY = ("int8", "int16", "int32", "int64", "uint8", "bool", "float16", "float32", "float64")
_WARM = 3.0


def script_from(found: SelfTest, home: str | None = None) -> Script:
    """As the file has it. What a check did not find there stays as it is in a plausible Mac."""
    values = {one.number: one.values for one in found.checks if one.outcome != "not applicable"}
    usual = plausible(home)
    changes: dict[str, Any] = {}
    for number, read in _READERS.items():
        if known := values.get(number):
            changes |= read(known, usual)
    fields = {name: value for name, value in vars(usual).items() if name not in ("latencies", "failures", "home")}
    script = script_of(fields | {name: value for name, value in changes.items() if name != "latencies"}, home)
    return _with_latencies(script, usual, changes.get("latencies", {}))


def _with_latencies(script: Script, usual: Script, latencies: Mapping[str, Latency]) -> Script:
    return Script(**{**vars(script), "latencies": {**usual.latencies, **latencies}})


def _arrays(values: Mapping[str, Any], usual: Script) -> dict[str, Any]:
    # coremltools makes float32 of float16 before the native module sees it.
    taken = [name for name in _NUMPY if name != "float16" and values["table"].get(name) == "taken"]
    return {"arrays": tuple(taken)}


def _loads(values: Mapping[str, Any], usual: Script) -> dict[str, Any]:
    took = values["load_ns"]
    cold, cached = took["first"], took["second"]
    return {
        "cold_load_ms": cold / 1e6,
        "cached_load_ms": cached / 1e6,
        "fresh_home_is_cold": took["in a fresh home"] * _WARM > cold,
        "cache_key": "path" if took["a copy at another path"] * _WARM > cold else "content",
    }


def _engines(values: Mapping[str, Any], usual: Script) -> dict[str, Any]:
    listed, told = values["cores listed"], values["cores by ioreg"]
    engines = max(len(listed), 1)
    return {
        "neural_engine_cores": told // engines if told else None,
        "listed_cores": listed[0] if listed else None,
        "engines": engines,
    }


def _units(values: Mapping[str, Any], usual: Script) -> dict[str, Any]:
    took = {unit: Latency(ms=max(ms - usual.conversion_ms, 0.01), noise=0) for unit, ms in values["median_ms"].items()}
    return {"latencies": {"heavy": took["all"], **{f"heavy {unit}": latency for unit, latency in took.items()}}}


def _services(values: Mapping[str, Any], usual: Script) -> dict[str, Any]:
    took = values["median_ms"]
    net = {name: ms - usual.conversion_ms for name, ms in took.items()}
    return {"qos_factors": {name: net[name] / net["default"] for name in ("utility", "background") if name in net}}


def _rewake(values: Mapping[str, Any], usual: Script) -> dict[str, Any]:
    first, loop = values["after 30 s"][0], values["after 0 s"][-1]
    more = first - loop
    return {"rewake_ms": more} if more > loop else {}


_READERS = {
    3: _arrays,
    4: lambda values, usual: {"float16_as": values["arrays"]["half"][0]},
    6: lambda values, usual: {"duration_before": values["light"]["before"]},
    8: lambda values, usual: {"keeps_state": values["written and read"] == 5},
    11: _loads,
    12: lambda values, usual: {"plan_warms": values["load_ns"]["after a plan"] < _WARM * values["load_ns"]["again"]},
    13: lambda values, usual: {"plans_constants": values["planned constants"] > 0},
    15: _engines,
    17: _units,
    18: _services,
    19: _rewake,
    24: lambda values, usual: {"free_gib": values["free_bytes"] / 2**30},
}
"""By check: what its values say of the fields of a script."""
