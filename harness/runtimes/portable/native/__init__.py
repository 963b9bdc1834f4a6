"""The portable runtime in the place of Core ML, under coremltools itself.

coremltools predicts through one native module, `coremltools.libcoremlpython`, which exists on macOS only. `install`
puts a module of the same surface there, so that `MLModel.predict`, `CompiledMLModel`, `compile_model`, `make_state`,
`MLModelAsset`, `MLModelStructure` and the loading at the end of `ct.convert` work on any OS, without a change to the
code that calls them.

It must never be mistaken for Core ML. It says once in the log what computes the predictions, it refuses to take Core
ML's place on macOS unless it is told to, and what only Apple hardware knows (devices, compute plans) it refuses to
answer. `ct.utils._is_macos()` stays truthful.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from coreml_prune_bench.core.errors import BenchError

if TYPE_CHECKING:
    from coreml_prune_bench.runtimes.portable.graph import Precision

__all__ = ["install", "is_installed", "uninstall"]

_PACKAGE = "coremltools"
_MODULE = "libcoremlpython"
_NAME = f"{_PACKAGE}.{_MODULE}"
_MACOS_VERSION = (15, 0)
"""The macOS whose API this is: coremltools asks for the version, and without one it compiles and loads nothing."""

# coremltools' own checks before it calls the native module. `models.utils` has its version check before
# `compile_model`; its `_is_macos`, which is what other code asks, is left alone.
_CHECKS = (
    ("coremltools.models.model", "_is_macos", lambda: True),
    ("coremltools.models.model", "_macos_version", lambda: _MACOS_VERSION),
    ("coremltools.models._compiled_model", "_macos_version", lambda: _MACOS_VERSION),
    ("coremltools.models.utils", "_macos_version", lambda: _MACOS_VERSION),
)


class _StandIn(ModuleType):
    """The module that coremltools finds, and what it displaced: `uninstall` puts that back."""

    def __init__(self, precision: Precision, threads: int | None) -> None:
        super().__init__(_NAME, "Not Core ML: the portable runtime of coreml-prune-bench in its place.")
        self.settings = (precision, threads)
        self.native = sys.modules.get(_NAME)
        self.displaced: dict[tuple[str, str], Any] = {}


def install(*, precision: Precision = "float32", threads: int | None = None, force: bool = False) -> None:
    """Let coremltools predict with the portable runtime. Before or after `import coremltools`, which this imports.

    `precision` and `threads` are those of `portable.load`. The compute units and optimization hints that a caller
    gives to coremltools are taken and make no difference: there is one device. Raises BenchError on macOS, where Core
    ML itself is at hand, unless `force` is set.
    """
    if sys.platform == "darwin" and not force:
        raise BenchError("this is macOS: use Core ML itself, or force=True to put the portable runtime in its place")
    current = sys.modules.get(_NAME)
    if isinstance(current, _StandIn) and current.settings == (precision, threads):
        return
    uninstall()
    stand_in = _build(precision, threads)
    sys.modules[_NAME] = stand_in  # before coremltools is imported, which looks for it then
    _hand_out(stand_in)
    logging.getLogger(__name__).warning(
        "coremltools' predictions come from the portable runtime (ONNX Runtime on this CPU, %s), not from Core ML",
        precision,
    )


def uninstall() -> None:
    """Give coremltools back what `install` displaced. Models that were loaded meanwhile go on working."""
    stand_in = sys.modules.get(_NAME)
    if not isinstance(stand_in, _StandIn):
        return
    for module, name in _places(stand_in):
        setattr(module, name, stand_in.displaced.get((module.__name__, name)))
    for module_name, name, _ in _CHECKS:
        setattr(sys.modules[module_name], name, stand_in.displaced[module_name, name])
    if stand_in.native is None:
        del sys.modules[_NAME]
        delattr(sys.modules[_PACKAGE], _MODULE)
    else:
        sys.modules[_NAME] = stand_in.native
        setattr(sys.modules[_PACKAGE], _MODULE, stand_in.native)


def is_installed() -> bool:
    """Whether coremltools predicts with the portable runtime now."""
    return isinstance(sys.modules.get(_NAME), _StandIn)


def _build(precision: Precision, threads: int | None) -> _StandIn:
    """The surface of the native module, under its names."""
    from coreml_prune_bench.runtimes.portable.native import proxies

    stand_in = _StandIn(precision, threads)
    bound = {"precision": precision, "threads": threads, "__module__": _NAME}
    vars(stand_in).update(proxies.PROXIES, _MLModelProxy=type("_MLModelProxy", (proxies.ModelProxy,), bound))
    return stand_in


def _hand_out(stand_in: _StandIn) -> None:
    """Into coremltools, and into those of its modules that have looked for a class already and hold None."""
    setattr(importlib.import_module(_PACKAGE), _MODULE, stand_in)
    for module, name in _places(stand_in):
        held, ours = vars(module)[name], vars(stand_in)[name]
        if held is not ours:
            stand_in.displaced[module.__name__, name] = held
            setattr(module, name, ours)
    for module_name, name, answer in _CHECKS:
        module = sys.modules[module_name]
        stand_in.displaced[module_name, name] = vars(module)[name]
        setattr(module, name, answer)


def _places(stand_in: _StandIn) -> Iterator[tuple[ModuleType, str]]:
    """Where coremltools' modules hold the native module's classes, or None for want of them."""
    classes = {name for name in vars(stand_in) if name.startswith("_ML")}
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(f"{_PACKAGE}.") and isinstance(module, ModuleType) and module is not stand_in:
            yield from ((module, name) for name in classes & vars(module).keys())
