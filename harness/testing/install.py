"""Puts the stand-in where coremltools looks for its native module, and takes it away again."""

import contextlib
import importlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from coreml_prune_bench.models.quiet import quiet_coremltools
from coreml_prune_bench.testing import native
from coreml_prune_bench.testing.clock import Clock
from coreml_prune_bench.testing.script import Script

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

Place = tuple[Any, str, Any]
"""An object, the name of its attribute, and what is put there."""


@dataclass(frozen=True)
class StandIn:
    """clock: the script's. world: what the native classes share."""

    clock: Clock
    world: native.World


@contextlib.contextmanager
def installed(script: Script, clock: Clock | None = None) -> Iterator[StandIn]:
    """coremltools on the scripted Mac, inside the block. Python itself still knows which operating system this is."""
    quiet_coremltools()
    importlib.import_module("coremltools")
    with contextlib.ExitStack() as stack:
        home = script.home or stack.enter_context(tempfile.TemporaryDirectory())
        world = native.World(script, clock or Clock(), Path(home))
        world.began_ns = world.clock.now_ns
        module = ModuleType(NAME, "Not Core ML: the stand-in of coreml_prune_bench.testing.")
        bound = {"world": world, "__module__": NAME, "_lacking": script.lacks}
        proxy = _Lacking("_MLModelProxy", (native._MLModelProxy,), bound)
        vars(module).update(native.CLASSES, _MLModelProxy=proxy)
        answers: dict[str, Any] = {"_is_macos": lambda: True, "_macos_version": lambda: script.macos}
        places = [(sys.modules[name], attribute) for name in _LOOKING for attribute in native.CLASSES]
        stack.enter_context(
            replaced(
                [
                    *((place, name, vars(module)[name]) for place, name in places if name in vars(place)),
                    *((sys.modules[name], attribute, answers[attribute]) for name, attribute in _FACTS),
                ]
            )
        )
        stack.callback(importlib.reload, importlib.import_module(_DERIVING))
        stack.enter_context(_as_native_module(module))
        importlib.reload(sys.modules[_DERIVING])
        yield StandIn(world.clock, world)


class _Lacking(type):
    """Of a class that has not some of the methods that it inherits."""

    _lacking: tuple[str, ...] = ()

    def __dir__(cls) -> list[str]:
        return [name for name in super().__dir__() if name not in cls._lacking]

    def __getattribute__(cls, name: str) -> Any:
        if name != "_lacking" and name in cls._lacking:
            raise AttributeError(f"type object '_MLModelProxy' has no attribute {name!r}")
        return super().__getattribute__(name)


@contextlib.contextmanager
def replaced(places: Sequence[Place]) -> Iterator[None]:
    """Other attributes inside the block."""
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    try:
        for place, name, value in places:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


@contextlib.contextmanager
def _as_native_module(module: ModuleType) -> Iterator[None]:
    before = sys.modules.get(NAME)
    package: Any = sys.modules["coremltools"]
    sys.modules[NAME] = package.libcoremlpython = module
    try:
        yield
    finally:
        if before is None:
            sys.modules.pop(NAME, None)  # a process that ends has emptied it
            del package.libcoremlpython
        else:
            sys.modules[NAME] = package.libcoremlpython = before
