"""Puts the stand-in where coremltools looks for its native module, and takes it away again."""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from coreml_prune_bench.models.quiet import quiet_coremltools
from tests.coreml_stand_in import native
from tests.coreml_stand_in.clock import Clock
from tests.coreml_stand_in.script import Script

NAME = "coremltools.libcoremlpython"

# Modules that look for the native classes when they are imported; the last one derives classes from them then.
_LOOKING = (
    "coremltools.models.model",
    "coremltools.models._compiled_model",
    "coremltools.models.compute_device",
    "coremltools.models.compute_plan",
)
_DERIVING = "coremltools.models.ml_program.experimental.compute_plan_utils"
_FACTS = (
    ("coremltools.models.utils", "_is_macos"),
    ("coremltools.models.utils", "_macos_version"),
    ("coremltools.models.model", "_is_macos"),
    ("coremltools.models.model", "_macos_version"),
    ("coremltools.models._compiled_model", "_macos_version"),
)


@dataclass(frozen=True)
class StandIn:
    clock: Clock
    world: native.World


@contextlib.contextmanager
def installed(script: Script, clock: Clock | None = None) -> Iterator[StandIn]:
    """coremltools on the scripted Mac, inside the block."""
    quiet_coremltools()
    importlib.import_module("coremltools")
    world = native.World(script, clock or Clock())
    world.began_ns = world.clock.now_ns
    module = ModuleType(NAME, "Not Core ML: the tests' stand-in.")
    bound = {"world": world, "__module__": NAME}
    vars(module).update(native.CLASSES, _MLModelProxy=type("_MLModelProxy", (native._MLModelProxy,), bound))
    answers: dict[str, Any] = {"_is_macos": lambda: True, "_macos_version": lambda: script.macos}
    places = [(sys.modules[name], attribute) for name in _LOOKING for attribute in native.CLASSES]
    places = [(place, name) for place, name in places if name in vars(place)]
    facts = [(sys.modules[name], attribute) for name, attribute in _FACTS]
    displaced = [(place, name, vars(place)[name]) for place, name in places + facts]
    native_before = sys.modules.get(NAME)
    try:
        sys.modules[NAME] = module
        sys.modules["coremltools"].libcoremlpython = module
        for place, name in places:
            setattr(place, name, vars(module)[name])
        for place, name in facts:
            setattr(place, name, answers[name])
        importlib.reload(importlib.import_module(_DERIVING))
        yield StandIn(world.clock, world)
    finally:
        for place, name, value in displaced:
            setattr(place, name, value)
        if native_before is None:
            sys.modules.pop(NAME, None)  # a process that ends has emptied it
            del sys.modules["coremltools"].libcoremlpython
        else:
            sys.modules[NAME] = native_before
            sys.modules["coremltools"].libcoremlpython = native_before
        importlib.reload(importlib.import_module(_DERIVING))
