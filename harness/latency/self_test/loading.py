"""Checks 10 to 12: compiled models and the system's cache."""

import os
import shutil
from pathlib import Path
from typing import Any

from coreml_prune_bench.latency.self_test.check import Here
from coreml_prune_bench.latency.self_test.native import _compiled, _error
from coreml_prune_bench.runtimes.coreml import cache_bytes

_COLD = 3.0
"""A cold load takes so many times as long as a cached one, at least."""


def moving(here: Here) -> None:
    first = _kept(_compiled(here.package("light")), here.scratch / "first" / "a.mlmodelc")
    texts = {"moved": _error(lambda: _load_ns(first))}
    os.replace(first.parent, here.scratch / "second")
    moved = here.scratch / "second" / "a.mlmodelc"
    texts["its folder renamed"] = _error(lambda: _load_ns(moved))
    here.note("loads", texts)
    for name, (kind, text) in texts.items():
        here.expect(kind == "no error", f"{name}: {text}")


def cache(here: Here) -> None:
    path, other = here.scratch / "here" / "a.mlmodelc", here.scratch / "a folder" / "b.mlmodelc"
    _kept(_compiled(here.package("heavy")), path)
    shutil.copytree(path, other)
    before = cache_bytes()
    took = {"first": _load_ns(path), "second": _load_ns(path), "in a new process": here.other_process(_load_ns, path)}
    took["a copy at another path"] = _load_ns(other)
    home = here.scratch / "home"
    home.mkdir()
    took["in a fresh home"] = here.other_process(_load_ns, path, CFFIXED_USER_HOME=str(home))
    shutil.rmtree(path)
    _kept(_compiled(here.package("heavy")), path)
    took["compiled again"] = _load_ns(path)
    here.note("load_ns", took)
    here.note("cache_bytes", [before, cache_bytes()])
    cold = took["first"]
    for name in ("second", "in a new process"):
        here.expect(took[name] * _COLD < cold, f"the load {name} is as slow as the first")
    for name in ("in a fresh home", "a copy at another path"):
        here.expect(took[name] * _COLD > cold, f"the load {name} is a warm one")


def plan_before_load(here: Here) -> None:
    from coreml_prune_bench.runtimes import coreml

    planned = _kept(_compiled(here.package("heavy")), here.scratch / "planned" / "a.mlmodelc")
    coreml.compute_plan(planned, "all")
    took = {"after a plan": _load_ns(planned), "again": _load_ns(planned)}
    here.note("load_ns", took)
    here.expect(took["after a plan"] < _COLD * took["again"], "a load after its plan is slower than one after a load")


def _kept(compiled: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(compiled, to)
    return to


def _load_ns(path: Path) -> Any:
    import coremltools as ct

    model = ct.models.CompiledMLModel(str(path), ct.ComputeUnit.ALL)
    return model._proxy.get_load_duration_in_nano_seconds()
